//! Calling the application's observers.
//!
//! They may block, so they run where that is allowed, on tokio's threads for blocking work: a worker
//! thread that is blocked can hold up the sockets and timers of the whole runtime, even where other
//! workers are idle, and the node would be suspected. One call at a time, in order; a thread is
//! taken when there is something to tell and given back when all is told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::error;

use crate::delegate::Delegate;
use crate::events::{Notice, NoticeStream};
use crate::limit::SharedLimit;
use crate::messages::Delivery;
use crate::user_state::UserStates;

/// Calls the delegate for each message.
pub(crate) async fn tell_messages(
    mut messages: mpsc::Receiver<Box<Delivery>>,
    delegate: Arc<dyn Delegate>,
) {
    let panics = Arc::<SharedLimit>::default();
    while let Some(first) = messages.recv().await {
        let (delegate, panics) = (Arc::clone(&delegate), Arc::clone(&panics));
        let telling = spawn_blocking(move || {
            let mut next = Some(first);
            while let Some(delivery) = next {
                guarded(&panics, || delegate.notify_message(delivery.message));
                next = messages.try_recv().ok();
            }
            messages
        });
        // An error means that the runtime is shutting down.
        let Ok(back) = telling.await else { return };
        messages = back;
    }
}

/// Takes messages that nobody is to be told of.
pub(crate) async fn drop_messages(mut messages: mpsc::Receiver<Box<Delivery>>) {
    while messages.recv().await.is_some() {}
}

/// Calls the delegate for everything else.
pub(crate) async fn tell_notices(
    mut notices: NoticeStream,
    delegate: Arc<dyn Delegate>,
    user_states: Arc<UserStates>,
) {
    let panics = Arc::<SharedLimit>::default();
    while let Some(first) = notices.next().await {
        let (delegate, user_states) = (Arc::clone(&delegate), Arc::clone(&user_states));
        let panics = Arc::clone(&panics);
        let telling = spawn_blocking(move || {
            let mut next = Some(first);
            while let Some(notice) = next {
                let whose = match &notice {
                    Notice::UserState { from, .. } => from.clone(),
                    _ => None,
                };
                if let (false, Some(peer)) = (guarded(&panics, || tell(&*delegate, notice)), whose)
                {
                    user_states.forget(&peer);
                }
                next = notices.try_next();
            }
            notices
        });
        let Ok(back) = telling.await else { return };
        notices = back;
    }
}

fn tell(delegate: &dyn Delegate, notice: Notice) {
    match notice {
        Notice::Event(event) => delegate.notify_event(&event),
        Notice::PingCompleted { node, rtt, payload } => {
            delegate.notify_ping_complete(&node, rtt, &payload);
        }
        Notice::UserState { state, join, .. } => delegate.merge_remote_state(state, join),
    }
}

/// An observer that panics loses this call, not those that come. Whether it has not.
fn guarded(panics: &SharedLimit, call: impl FnOnce()) -> bool {
    let told = catch_unwind(AssertUnwindSafe(call)).is_ok();
    if !told {
        if let Some(more) = panics.allow() {
            error!(more, "the application's delegate panicked while it was told something");
        }
    }
    told
}
