//! From settings to a running node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::wire::stream::RemoteRecord;
use memberlist_protocol::{Application, Membership, Node, NodeId, Peer, Refusal};
use memberlist_transport::Transport;
use rand::TryRng;
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument, error, error_span};

use crate::accept::accept_streams;
use crate::check::{Checked, check, stream_limits};
use crate::config::Config;
use crate::delegate::Delegate;
use crate::driver::Driver;
use crate::error::StartError;
use crate::events::{Capacity, Others};
use crate::handle::{Inner, Memberlist};
use crate::layers::Layers;
use crate::limit::RateLimit;
use crate::messages::{Delivery, Messages};
use crate::meter::Meter;
use crate::observe::{drop_messages, tell_messages, tell_notices};
use crate::resolve::Resolver;
use crate::shared::Shared;
use crate::streams::{Budget, StreamContext};
use crate::user_state::UserStates;

/// Commands that wait for the node's task; callers wait when it is full.
const COMMAND_CAPACITY: usize = 256;

/// A node that is not started yet.
///
/// ```
/// use memberlist::{Builder, Config, Delegate, memory::MemoryNetwork};
///
/// struct App;
/// impl Delegate for App {
///     fn notify_join(&self, member: &memberlist::Member) {
///         println!("{} is here", member.id());
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new(1);
/// let transport = network.bind("10.0.0.1:7946".parse()?)?;
/// let node = Builder::new(Config::lan("a")).delegate(App).start(transport).await?;
/// # node.shutdown().await;
/// # Ok(()) }
/// ```
pub struct Builder {
    config: Config,
    delegate: Arc<dyn Delegate>,
    /// Whether that is the application's.
    observed: bool,
    messages: Option<mpsc::Sender<Box<Delivery>>>,
}

impl Builder {
    /// With these settings, and no delegate.
    pub fn new(config: Config) -> Self {
        Self { config, delegate: Arc::new(()), observed: false, messages: None }
    }

    /// The settings, to be changed before the start.
    pub fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    /// The application's side of the node.
    pub fn delegate(mut self, delegate: impl Delegate) -> Self {
        self.delegate = Arc::new(delegate);
        self.observed = true;
        self
    }

    /// Gives user messages to the returned queue instead of the delegate, so that they can be taken
    /// with `await`. Whoever takes them slowly holds streams back; messages by packet are dropped
    /// and counted when [`Config::message_capacity`] of them wait.
    pub fn messages(mut self) -> (Self, Messages) {
        let (sender, receiver) = mpsc::channel(queue_capacity(&self.config));
        self.messages = Some(sender);
        (self, Messages(receiver))
    }

    /// Starts the node over this transport. It is alone until it joins somebody. Its packets are as
    /// large as both
    /// [`max_packet_bytes`](memberlist_protocol::Config::max_packet_bytes) and the transport allow.
    ///
    /// # Errors
    /// If the settings cannot be used. The transport is dropped then.
    pub async fn start<T: Transport>(self, transport: T) -> Result<Memberlist<T>, StartError> {
        let Self { config, delegate, observed, messages } = self;
        let Checked { id, assured_packet_bytes, layers } = check(&config, &transport)?;
        let meta = delegate.node_meta(config.protocol.max_meta_bytes);
        let now = tokio::time::Instant::now().into_std();
        let mut machine = Membership::new(
            config.protocol.clone(),
            id.clone(),
            transport.advertise_addr(),
            meta.unwrap_or_else(|| config.meta.clone()),
            system_seed()?,
            now,
            Box::new(Decisions::new(Arc::clone(&delegate))),
        )?;
        machine.set_assured_packet_bytes(assured_packet_bytes);

        // What this node writes is told apart from what others of the process do, whatever is filtered out.
        let span = error_span!("memberlist", own = %id);
        let meter = Meter::of(&config);
        let shared = Arc::new(Shared::new(id.clone(), meter.clone()));
        let hub = Arc::clone(&shared.hub);
        let transport = Arc::new(transport);
        let (commands, receiver) = mpsc::channel(COMMAND_CAPACITY);
        let port = transport.advertise_addr().port();
        let user_states = Arc::new(UserStates::new(Arc::clone(&hub)));
        let context = stream_context(&config, id, port, &delegate, layers, user_states, meter);
        let messages = messages.unwrap_or_else(|| {
            let (sender, receiver) = mpsc::channel(queue_capacity(&config));
            match observed {
                true => {
                    let telling = tell_messages(receiver, Arc::clone(&delegate));
                    tokio::spawn(telling.instrument(span.clone()))
                }
                false => tokio::spawn(drop_messages(receiver)),
            };
            sender
        });
        if observed {
            let notices = hub.subscribe(notice_capacity(&config));
            let user_states = Arc::clone(&context.user_states);
            let telling = tell_notices(notices, delegate, user_states);
            tokio::spawn(telling.instrument(span.clone()));
        }

        let accept = accept_streams(
            Arc::clone(&transport),
            context.clone(),
            commands.downgrade(),
            messages.clone(),
            config.max_inbound_streams,
            Arc::clone(&shared),
        );
        let mut driver = Driver::new(
            machine,
            Arc::clone(&transport),
            Arc::clone(&shared),
            receiver,
            commands.downgrade(),
            messages,
            context.clone(),
            tokio::spawn(accept.instrument(span.clone())),
        );
        driver.fit_layers();
        span.in_scope(|| driver.tell_all());
        tokio::spawn(Box::new(driver).run().instrument(span));
        let join_permits = Semaphore::new(config.join_concurrency.min(Semaphore::MAX_PERMITS));
        let resolver = Resolver::new(&config);
        let inner = Arc::new(Inner {
            transport,
            shared,
            commands,
            config,
            context,
            join_permits,
            resolver,
        });
        inner.seek(system_seed()?);
        Ok(Memberlist::of(inner))
    }
}

/// More than the runtime counts is as good as no limit.
fn queue_capacity(config: &Config) -> usize {
    config.message_capacity.clamp(1, Semaphore::MAX_PERMITS)
}

fn notice_capacity(config: &Config) -> Capacity {
    let others =
        Others { pings: config.event_capacity, user_state_bytes: config.max_waiting_state_bytes };
    Capacity { events: config.event_capacity, others: Some(others) }
}

fn stream_context(
    config: &Config,
    own: NodeId,
    port: u16,
    delegate: &Arc<dyn Delegate>,
    layers: Arc<Layers>,
    user_states: Arc<UserStates>,
    meter: Meter,
) -> StreamContext {
    StreamContext {
        own,
        port,
        format: config.protocol.wire_format,
        compression: config.protocol.compression,
        limits: stream_limits(config),
        sync_limits: config.protocol.sync_limits(),
        max_question_bytes: usize::MAX,
        max_user_states: config.protocol.max_push_pulls,
        timeout: config.protocol.stream_timeout.max(Duration::from_millis(1)),
        budget: Arc::new(Semaphore::new(Budget::units(config.max_buffered_stream_bytes))),
        budget_bytes: config.max_buffered_stream_bytes,
        delegate: Arc::clone(delegate),
        layers,
        user_states,
        meter,
        panics: Arc::default(),
    }
}

fn system_seed() -> Result<u64, StartError> {
    rand::rngs::SysRng.try_next_u64().map_err(|error| StartError::Randomness(error.to_string()))
}

/// The machine's questions, passed on to the delegate. One that panics must not end the node, which a
/// peer could then do: it is as if the delegate had refused, or had nothing to say.
struct Decisions {
    delegate: Arc<dyn Delegate>,
    panics: RateLimit,
}

impl Decisions {
    fn new(delegate: Arc<dyn Delegate>) -> Self {
        Self { delegate, panics: RateLimit::default() }
    }

    fn ask<R>(&mut self, of: &str, decide: impl FnOnce(&dyn Delegate) -> R) -> Option<R> {
        let answer = catch_unwind(AssertUnwindSafe(|| decide(&*self.delegate)));
        if answer.is_err() {
            if let Some(more) = self.panics.allow() {
                error!(more, "the application's delegate panicked in {of}");
            }
        }
        answer.ok()
    }
}

fn panicked() -> Refusal {
    Refusal("the application panicked instead of deciding".to_owned())
}

impl Application for Decisions {
    fn admit_alive(&mut self, node: &Node) -> Result<(), Refusal> {
        self.ask("admit_alive", |app| app.admit_alive(node)).unwrap_or_else(|| Err(panicked()))
    }
    fn admit_merge(&mut self, peer: &Peer, nodes: &[RemoteRecord]) -> Result<(), Refusal> {
        let decide = |app: &dyn Delegate| app.admit_merge(peer, nodes);
        self.ask("admit_merge", decide).unwrap_or_else(|| Err(panicked()))
    }
    fn ack_payload(&mut self) -> Bytes {
        self.ask("ack_payload", |app| app.ack_payload()).unwrap_or_default()
    }
    fn has_user_broadcasts(&mut self) -> bool {
        self.ask("has_broadcasts", |app| app.has_broadcasts()).unwrap_or_default()
    }
    fn user_broadcasts(&mut self, overhead: usize, limit: usize) -> Vec<Bytes> {
        self.ask("broadcasts", |app| app.broadcasts(overhead, limit)).unwrap_or_default()
    }
    fn allows_stream_ping(&mut self, node: &Node) -> bool {
        self.ask("allows_stream_ping", |app| app.allows_stream_ping(node)).unwrap_or_default()
    }
}
