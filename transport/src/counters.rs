//! Counters that transports keep of what they do.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a struct of counts with public fields, which can also be listed by name with `counts`, and
/// beside it a struct of [`Counter`]s whose `snapshot` gives the first.
///
/// ```
/// memberlist_transport::counters! {
///     /// What happened so far.
///     pub struct Stats, live: Counters {
///         /// Packets sent.
///         packets_sent,
///     }
/// }
/// let counters = Counters::default();
/// counters.packets_sent.add_one();
/// assert_eq!(counters.snapshot().packets_sent, 1);
/// assert_eq!(counters.snapshot().counts().next(), Some(("packets_sent", 1)));
/// ```
#[macro_export]
macro_rules! counters {
    ($(#[$about:meta])+ pub struct $stats:ident, live: $counters:ident {
        $($(#[$doc:meta])+ $name:ident,)*
    }) => {
        $(#[$about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $stats {
            $($(#[$doc])+ pub $name: u64,)*
        }

        impl $stats {
            /// Every count and its name, in the order of the fields.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        /// The live side of the counts.
        #[derive(Debug, Default)]
        pub(crate) struct $counters {
            $(pub(crate) $name: $crate::Counter,)*
        }

        impl $counters {
            pub(crate) fn snapshot(&self) -> $stats {
                $stats { $($name: self.$name.get(),)* }
            }
        }
    };
}

/// A count that goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Counts that many more.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
