//! User messages on their way to the application.

use tokio::sync::mpsc;

use crate::delegate::UserMessage;
use crate::streams::Budget;

/// A message with its share of the memory limit, which is given back when it is dropped.
pub(crate) struct Delivery {
    pub(crate) message: UserMessage,
    pub(crate) _budget: Budget,
}

/// The messages of other nodes' applications; see [`Builder::messages`](crate::Builder::messages).
pub struct Messages(pub(crate) mpsc::Receiver<Box<Delivery>>);

impl Messages {
    /// The next message; `None` after shutdown.
    pub async fn next(&mut self) -> Option<UserMessage> {
        Some(self.0.recv().await?.message)
    }
}
