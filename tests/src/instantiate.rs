//! From scenarios to tests.

/// Makes a test of each scenario, over one transport, on a runtime of one's choice: `real` has two
/// threads and the machine's clock, `single` one thread; `virtual` has one thread and a clock that
/// jumps to the next timer when all wait (for transports that touch nothing outside the process).
///
/// ```ignore
/// instantiate!(real NetTransport { join: [many_seeds, cancelled], leave: [farewell] });
/// ```
#[macro_export]
macro_rules! instantiate {
    (@one real $transport:ty, $group:ident, $scenario:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $scenario() {
            $crate::scenarios::$group::$scenario::<$transport>().await;
        }
    };
    (@one single $transport:ty, $group:ident, $scenario:ident) => {
        #[tokio::test(flavor = "current_thread")]
        async fn $scenario() {
            $crate::scenarios::$group::$scenario::<$transport>().await;
        }
    };
    (@one virtual $transport:ty, $group:ident, $scenario:ident) => {
        #[tokio::test(flavor = "current_thread", start_paused = true)]
        async fn $scenario() {
            $crate::scenarios::$group::$scenario::<$transport>().await;
        }
    };
    (@group $clock:ident $transport:ty, $group:ident, [$($scenario:ident),* $(,)?]) => {
        mod $group {
            use super::*;
            $($crate::instantiate!(@one $clock $transport, $group, $scenario);)*
        }
    };
    ($clock:ident $transport:ty { $($group:ident: $scenarios:tt),* $(,)? }) => {
        $($crate::instantiate!(@group $clock $transport, $group, $scenarios);)*
    };
}

/// Makes a test of every scenario; see [`instantiate!`].
#[macro_export]
macro_rules! every_scenario {
    ($clock:ident $transport:ty) => {
        $crate::every_scenario_of_any_format!($clock $transport);
        /// What Go's format has no bytes for: receipts, and broadcasts that are passed on.
        mod native_format {
            use super::*;
            $crate::instantiate!($clock $transport {
                messages: [broadcasts],
                streams: [slow_application],
            });
        }
    };
}

/// Makes a test of every scenario that holds in any wire format; see [`instantiate!`].
#[macro_export]
macro_rules! every_scenario_of_any_format {
    ($clock:ident $transport:ty) => {
        $crate::instantiate!($clock $transport {
            join: [many_seeds, cancelled, typed_errors, through_itself, crowd, of_clusters],
            leave: [farewell, twice, alone, too_slow, and_join_again, all_together],
            restart: [
                killed,
                just_declared_dead,
                reaped,
                unnoticed,
                unnoticed_at_first_incarnation,
                without_a_seed,
                moved_after_death,
                moved_after_farewell,
                another_tenant,
            ],
            partition: [short, long, forgotten, one_way, deaf, packets_lost, streams_lost],
            messages: [broadcasts_arrive, by_packet, slow_application_drops_packets],
            streams: [sizes, refused, nobody_listens],
            facts: [meta, meta_too_long, ping, ipv6, many_questions_at_once],
            decisions: [
                user_state,
                no_decision,
                no_state,
                refused_node,
                refused_by_the_joiner,
                refused_by_the_seed,
                incompatible,
                conflict,
            ],
            callbacks: [reentrant],
            event_streams: [complete, slow],
            ending: [
                closed,
                waiting_calls,
                frees_its_port,
                last_handle,
                last_handle_in_an_exchange,
            ],
        });
    };
}

/// Makes a test of the scenarios in which an application blocks a thread, on one thread and on
/// several. They need the machine's clock.
#[macro_export]
macro_rules! every_blocking_scenario {
    ($transport:ty) => {
        $crate::instantiate!(real $transport {
            callbacks: [waiting, blocking, slow],
        });
        mod one_thread {
            use super::*;
            $crate::instantiate!(single $transport {
                callbacks: [waiting, blocking, slow],
            });
        }
    };
}
