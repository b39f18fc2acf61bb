//! The handle that applications hold.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use memberlist_protocol::wire::{Dialect, WireFormat};
use memberlist_protocol::{
    ExchangeError, Explanation, Health, Member, NodeId, NodeState, Peer, Priority, Relation, Stats,
    Tombstone,
};
use memberlist_transport::Transport;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::address::JoinAddress;
use crate::builder::Builder;
use crate::command::Command;
use crate::config::Config;
use crate::error::{
    Attempt, Closed, JoinError, LeaveError, PingError, ReconfigureError, SeedError, SeedResult,
    SendError, StartError, UpdateError,
};
use crate::events::{Capacity, Subscription};
use crate::resolve::Resolver;
use crate::shared::Shared;
use crate::streams::{StreamContext, send_user_message};

/// A member of a cluster: start it, join others through it, ask it who is alive.
///
/// Cheap to clone; all clones are the same node. The node runs on tasks of its own until
/// [`shutdown`](Self::shutdown) is called or the last clone is dropped; either ends it without a
/// farewell, so call [`leave`](Self::leave) first.
///
/// Reading ([`members`](Self::members) and the like) never waits for the node and is allowed
/// everywhere, in delegates too. Futures may be dropped at any time: a join that is given up stops
/// dialling.
pub struct Memberlist<T: Transport> {
    inner: Arc<Inner<T>>,
}

pub(crate) struct Inner<T: Transport> {
    pub(crate) transport: Arc<T>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Sender<Box<Command>>,
    pub(crate) config: Config,
    pub(crate) context: StreamContext,
    pub(crate) join_permits: Semaphore,
    pub(crate) resolver: Resolver,
}

impl<T: Transport> Inner<T> {
    /// Counts an exchange that failed by a label or key among the machine's drops.
    pub(crate) async fn count_layer_fault(&self, error: Option<&ExchangeError>) {
        if let Some(ExchangeError::Layer { reason, .. }) = error {
            // If the node is down, nobody counts any more.
            let _ = self.commands.send(Command::CountDrop { reason: *reason }.into()).await;
        }
    }

    /// In which format this node speaks to a peer.
    pub(crate) async fn dialect_for(&self, peer: &Peer) -> Result<Dialect, Closed> {
        let format = self.context.format;
        if format != WireFormat::Mixed {
            return Ok(format.towards_strangers());
        }
        let (reply, answer) = oneshot::channel();
        let peer = peer.clone();
        self.commands.send(Command::Dialect { peer, reply }.into()).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }
}

impl<T: Transport> Clone for Memberlist<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T: Transport> fmt::Debug for Memberlist<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memberlist")
            .field("name", &self.inner.shared.id)
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Memberlist<T> {
    /// Starts a node that is alone, over this transport; [`Builder`] does the same with a delegate.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub async fn start(transport: T, config: Config) -> Result<Self, StartError> {
        Builder::new(config).start(transport).await
    }

    pub(crate) fn of(inner: Arc<Inner<T>>) -> Self {
        Self { inner }
    }

    // ---- reading ------------------------------------------------------------------------------

    /// This node's name.
    pub fn name(&self) -> &str {
        self.inner.shared.id.as_str()
    }

    /// The address under which others reach this node.
    pub fn addr(&self) -> SocketAddr {
        self.inner.transport.advertise_addr()
    }

    /// The transport that this node was started with.
    pub fn transport(&self) -> &T {
        &self.inner.transport
    }

    /// The live members by name: alive and suspect ones, this node included.
    pub fn members(&self) -> Vec<Member> {
        let all = self.inner.shared.hub.members();
        all.iter().filter(|member| member.state.is_live()).cloned().collect()
    }

    /// The members that are alive and not suspected, by name.
    pub fn alive_members(&self) -> Vec<Member> {
        let all = self.inner.shared.hub.members();
        all.iter().filter(|member| member.state == NodeState::Alive).cloned().collect()
    }

    /// Every known member by name, dead and left ones included until they are forgotten. Shared:
    /// asking again without a change in between costs nothing.
    pub fn known_members(&self) -> Arc<[Member]> {
        self.inner.shared.hub.members()
    }

    /// One member by name, whatever its state; nothing once it is forgotten: see
    /// [`tombstone`](Self::tombstone).
    pub fn member(&self, name: &str) -> Option<Member> {
        self.inner.shared.hub.member(name)
    }

    /// How many live members there are, this node included.
    pub fn member_count(&self) -> usize {
        self.inner.shared.hub.live_count()
    }

    /// This node as it is announced.
    pub fn own(&self) -> Option<Member> {
        self.member(self.name())
    }

    /// How far this node doubts itself: 0 is healthy; it probes `score + 1` times slower.
    pub fn health_score(&self) -> u32 {
        self.inner.shared.health.load(Ordering::Relaxed)
    }

    /// User messages that came by packet and were dropped, because the application was slow.
    pub fn messages_dropped(&self) -> u64 {
        self.inner.shared.messages_dropped.load(Ordering::Relaxed)
    }

    /// States of other nodes' applications that the delegate was not given, because it was slow and
    /// [`max_waiting_state_bytes`](Config::max_waiting_state_bytes) of them waited.
    pub fn user_states_dropped(&self) -> u64 {
        self.inner.shared.hub.dropped.user_states.load(Ordering::Relaxed)
    }

    /// Results of pings that the delegate was not told, because it was slow.
    pub fn ping_results_dropped(&self) -> u64 {
        self.inner.shared.hub.dropped.pings.load(Ordering::Relaxed)
    }

    /// Packets of this node that were dropped, because the network had no room for them. A transport
    /// may drop further ones and count them itself.
    pub fn packets_dropped(&self) -> u64 {
        self.inner.shared.packets_dropped.load(Ordering::Relaxed)
    }

    /// Inbound streams that were closed without having been served, because too many were: at once, or after
    /// they were told to come back. Push/pulls that were told so are not among them: see
    /// [`Stats::joins_deferred`].
    pub fn streams_refused(&self) -> u64 {
        self.inner.shared.streams_refused.load(Ordering::Relaxed)
    }

    /// Everything that happens, beginning with a snapshot that is made when the first event is asked
    /// for: who is in it has no `Joined` of its own. Every subscriber sees every event after it; a slow one gets a fresh snapshot instead of those that it missed, and is told so.
    pub fn subscribe(&self) -> Subscription {
        let shared = &self.inner.shared;
        let capacity = Capacity { events: self.inner.config.event_capacity, others: None };
        Subscription(shared.hub.subscribe(capacity))
    }

    /// What the node has counted.
    ///
    /// # Errors
    /// After shutdown.
    pub async fn stats(&self) -> Result<Stats, Closed> {
        self.ask(|reply| Command::Stats { reply }).await
    }

    /// Why a member is in its state: when something last came from it, how this node's probes of it
    /// ended and over which legs, who suspects it and when that runs out, and what follows from it all,
    /// such as a route that is cut in one direction. Its [`Display`](std::fmt::Display) says it in words.
    /// Nothing if no member of that name is known or remembered.
    ///
    /// ```no_run
    /// # async fn example<T: memberlist::Transport>(node: memberlist::Memberlist<T>) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(why) = node.explain("cache-7").await? {
    ///     println!("{why}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// After shutdown.
    pub async fn explain(&self, name: &str) -> Result<Option<Explanation>, Closed> {
        let name = name.into();
        self.ask(|reply| Command::Explain { name, reply }).await
    }

    /// Why [`health_score`](Self::health_score) is what it is: what changed it, whether this process
    /// stood still, and whether anything arrives here at all.
    ///
    /// # Errors
    /// After shutdown.
    pub async fn health(&self) -> Result<Health, Closed> {
        self.ask(|reply| Command::Health { reply }).await
    }

    /// The settings of the protocol as they are now: see [`reconfigure`](Self::reconfigure).
    ///
    /// # Errors
    /// After shutdown.
    pub async fn settings(&self) -> Result<memberlist_protocol::Config, Closed> {
        self.ask(|reply| Command::Settings { reply }).await
    }

    /// Changes settings of the protocol while the node runs: its intervals, timeouts and multipliers, and
    /// what is switched on of probing, gossip and exchanges. Begin with those of
    /// [`settings`](Self::settings).
    ///
    /// ```no_run
    /// # async fn example<T: memberlist::Transport>(node: memberlist::Memberlist<T>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut settings = node.settings().await?;
    /// settings.probe_interval = std::time::Duration::from_secs(2);
    /// node.reconfigure(settings).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If they cannot be used, or one was changed that needs a restart; nothing has changed then.
    pub async fn reconfigure(
        &self,
        settings: memberlist_protocol::Config,
    ) -> Result<(), ReconfigureError> {
        let settings = Box::new(settings);
        Ok(self.ask(|reply| Command::Reconfigure { settings, reply }).await??)
    }

    /// The last round trip of a direct ping by this node, of each known member that ever answered one:
    /// what [`explain`](Self::explain) says of one member, of all at once.
    ///
    /// # Errors
    /// After shutdown.
    pub async fn round_trips(&self) -> Result<Vec<(NodeId, Duration)>, Closed> {
        self.ask(|reply| Command::RoundTrips { reply }).await
    }

    /// What is remembered of a member that was forgotten (it had been dead or left for
    /// [`gossip_to_the_dead_time`](memberlist_protocol::Config::gossip_to_the_dead_time)): when and
    /// why it went. Nothing if it never was, is back, or is not among the last
    /// [`max_tombstones`](memberlist_protocol::Config::max_tombstones).
    ///
    /// # Errors
    /// After shutdown.
    pub async fn tombstone(&self, name: &str) -> Result<Option<Tombstone>, Closed> {
        let name = name.into();
        self.ask(|reply| Command::Tombstone { name, reply }).await
    }

    /// The keys of the cluster: who has which, and how they are replaced. Nothing if this node was
    /// started without [`Config::encryption`].
    ///
    /// ```no_run
    /// # async fn example<T: memberlist::Transport>(node: memberlist::Memberlist<T>) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(keys) = node.keys() {
    ///     let (key, report) = keys.rotate().await?;
    ///     println!("{} members now use {key}", report.answers.len());
    /// }
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "encryption")]
    pub fn keys(&self) -> Option<crate::keys::Keys<'_, T>> {
        crate::keys::Keys::new(&self.inner)
    }

    // ---- coming and going ---------------------------------------------------------------------

    /// Joins the cluster of the seeds: all are tried, at the same time, and each has its result.
    ///
    /// A seed is `[name/]host[:port]`: an IP address or a host name, of which every address is tried, up to
    /// 256; without a port [`Config::default_port`]; a name says which node is expected there. A seed that is
    /// busy is asked again when it says, or another member that it names, ten times at most, the last one begun
    /// within three [`stream_timeout`](memberlist_protocol::Config::stream_timeout). A node that has left is
    /// alive again by this. Link-local IPv6 addresses (`fe80::…`) do not work: they mean something on one
    /// interface only, and members pass addresses on.
    ///
    /// ```no_run
    /// # async fn example<T: memberlist::Transport>(node: memberlist::Memberlist<T>) -> Result<(), Box<dyn std::error::Error>> {
    /// for seed in node.join(["10.0.0.1", "seed.example.com:8000", "[2001:db8::1]:7946"]).await? {
    ///     println!("{}: joined {}", seed.seed, seed.is_joined());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// When it returns, this node knows who is in the cluster; the others know of it a moment later, when they
    /// have merged what it said.
    ///
    /// # Errors
    /// If none could be joined.
    pub async fn join<I>(&self, seeds: I) -> Result<Vec<SeedResult>, JoinError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.join_all(seeds, false).await
    }

    /// As [`join`](Self::join); one that the node begins by itself does not bring it back when it has left.
    pub(crate) async fn join_all<I>(
        &self,
        seeds: I,
        by_itself: bool,
    ) -> Result<Vec<SeedResult>, JoinError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.check_open()?;
        let mut running: FuturesUnordered<_> = (seeds.into_iter())
            .enumerate()
            .map(|(at, seed)| {
                let seed = seed.as_ref().to_owned();
                async move { (at, self.join_seed(seed, by_itself).await) }
            })
            .collect();
        if running.is_empty() {
            return Err(JoinError::NoSeeds);
        }
        let mut results = Vec::new();
        while let Some((at, result)) = running.next().await {
            results.push((at, result?));
        }
        results.sort_by_key(|(at, _)| *at);
        let results: Vec<SeedResult> = results.into_iter().map(|(_, result)| result).collect();
        match results.iter().any(SeedResult::is_joined) {
            true => Ok(results),
            false => Err(JoinError::NoneReached(results)),
        }
    }

    async fn join_seed(&self, seed: String, by_itself: bool) -> Result<SeedResult, Closed> {
        let (name, addrs) = match self.resolve(&seed).await {
            Ok(found) => found,
            Err(error) => {
                return Ok(SeedResult { seed, attempts: Vec::new(), error: Some(error) });
            }
        };
        let mut running: FuturesUnordered<_> = (addrs.into_iter())
            .map(|addr| self.join_address(addr, name.clone(), by_itself))
            .collect();
        let mut attempts = Vec::new();
        while let Some(attempt) = running.next().await {
            attempts.push(attempt?);
        }
        attempts.sort_by_key(|attempt| attempt.addr);
        Ok(SeedResult { seed, attempts, error: None })
    }

    async fn resolve(&self, seed: &str) -> Result<(Option<NodeId>, Vec<SocketAddr>), SeedError> {
        let address = JoinAddress::parse(seed, self.inner.config.default_port)?;
        let name = address.name().map(NodeId::new).transpose()?;
        let addrs =
            self.inner.resolver.addresses(&address).await.map_err(|message| {
                SeedError::Resolve { host: address.host().to_owned(), message }
            })?;
        Ok((name, addrs))
    }

    async fn join_address(
        &self,
        addr: SocketAddr,
        name: Option<NodeId>,
        by_itself: bool,
    ) -> Result<Attempt, Closed> {
        // Never closed, so there is always a permit to wait for.
        let _permit = self.inner.join_permits.acquire().await.map_err(|_| Closed)?;
        // Dropping `_alive` tells the stream's task that nobody waits any more.
        let (_alive, cancelled) = oneshot::channel();
        let peer = Peer { addr, name };
        let result = self.ask(|reply| Command::Join { peer, by_itself, cancelled, reply }).await?;
        Ok(Attempt { addr, result })
    }

    /// Says farewell, and waits until it has been sent as often as news is. Afterwards others see
    /// this node as left, not as failed. The node goes on answering until it is shut down, but nobody
    /// can join the cluster through it; it may itself join again.
    ///
    /// # Errors
    /// [`LeaveError::Timeout`] if it took longer; the node has left all the same.
    pub async fn leave(&self, timeout: Duration) -> Result<(), LeaveError> {
        match tokio::time::timeout(timeout, self.ask(|reply| Command::Leave { reply })).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(LeaveError::Timeout(timeout)),
        }
    }

    /// Ends the node and closes its transport, without a farewell. Waits until the port is free.
    /// Calling it again does nothing.
    pub async fn shutdown(&self) {
        // An error means that it is down already.
        let _ = self.ask(|reply| Command::Shutdown { reply }).await;
        self.inner.transport.close().await;
    }

    // ---- talking ------------------------------------------------------------------------------

    /// Changes the meta of this node and tells everybody; waits until the news has been sent as
    /// often as news is (or replaced by newer).
    ///
    /// There is no bound on that: while all others are suspected or dead, nobody is left to tell,
    /// and it waits until somebody is. Put a `tokio::time::timeout` around it, as Go's `UpdateNode`
    /// has one. Whoever gives up, the meta has changed, and goes on being told.
    ///
    /// # Errors
    /// If it is too long; nothing has changed then.
    pub async fn update_meta(&self, meta: impl Into<Bytes>) -> Result<(), UpdateError> {
        let meta = meta.into();
        let sent = self.ask(|reply| Command::UpdateMeta { meta, reply }).await??;
        Ok(sent.await.map_err(|_| Closed)?)
    }

    /// Pings a live member by packet and gives the round-trip time.
    ///
    /// # Errors
    /// If it does not answer within the configured `probe_timeout`, or is no member.
    pub async fn ping(&self, name: &str) -> Result<Duration, PingError> {
        self.check_open()?;
        let peer = self.live_peer(name).ok_or_else(|| PingError::NotAMember(name.to_owned()))?;
        let addr = peer.addr;
        match self.ask(|reply| Command::Ping { peer, reply }).await? {
            Some(rtt) => Ok(rtt),
            None => {
                let (name, timeout) = (name.to_owned(), self.settings().await?.probe_timeout);
                Err(PingError::NoAnswer { name, addr, timeout })
            }
        }
    }

    /// Sends bytes to the applications of all other members: they pass them on among themselves, so
    /// that each gets them once, usually within a second, in no order. Best effort, but gossip
    /// rarely misses a member; see also [`send_reliable`](Self::send_reliable). What is broadcast while nobody
    /// else is there waits, and goes to those who come.
    ///
    /// In Go's format nobody passes them on: this node sends them to each member itself, one gossip tick
    /// after the other, perhaps more than once, and they do not say where they began. In a mixed cluster a
    /// member may get them both ways.
    ///
    /// # Errors
    /// If they do not fit a packet, or this node has left.
    pub async fn broadcast(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.broadcast_with(payload, Relation::Unique, Priority::Normal).await
    }

    /// As [`broadcast`](Self::broadcast), with a priority, and replacing older broadcasts that still
    /// wait to be sent: those of the same name, or those that a function picks.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub async fn broadcast_with(
        &self,
        payload: impl Into<Bytes>,
        relation: Relation<Arc<str>>,
        priority: Priority,
    ) -> Result<(), SendError> {
        let payload = payload.into();
        let command = |reply| Command::Broadcast { payload, relation, priority, reply };
        Ok(self.ask(command).await??)
    }

    /// Tells that [`Delegate::has_broadcasts`](crate::Delegate::has_broadcasts) has become true.
    ///
    /// # Errors
    /// After shutdown.
    pub async fn broadcasts_available(&self) -> Result<(), Closed> {
        self.inner.commands.send(Command::BroadcastsAvailable.into()).await.map_err(|_| Closed)
    }

    /// Sends bytes to one member in one packet, best effort.
    ///
    /// # Errors
    /// If they do not fit a packet, or it is no live member.
    pub async fn send(&self, name: &str, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.check_open()?;
        let to = self.live_peer(name).ok_or_else(|| SendError::NotAMember(name.to_owned()))?;
        self.send_to(to, payload).await
    }

    /// As [`send`](Self::send), to any address.
    ///
    /// # Errors
    /// If they do not fit a packet, or the address has port 0 or an unspecified IP address.
    pub async fn send_to(
        &self,
        to: impl Into<Peer>,
        payload: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        let (to, payload): (Peer, Bytes) = (to.into(), payload.into());
        if to.addr.port() == 0 || to.addr.ip().is_unspecified() {
            return Err(SendError::NoAddress(to.addr));
        }
        Ok(self.ask(|reply| Command::Send { to, payload, reply }).await??)
    }

    /// Sends bytes to one member over a stream, and waits until they are in the queue of its
    /// application: one that is slow holds the sender back. What the application does with them is
    /// not known, and the receiver is not told who sent them: put a name into the payload where that
    /// matters. Go's format has no receipts: a member that is spoken to in it has read the bytes when this
    /// returns, and nothing is known of its queue. Somebody who has kept the stream can deliver it again, with encryption for as long as
    /// its key is installed: number the messages where that matters. At most 20 MiB.
    ///
    /// # Errors
    /// If it could not be reached or did not confirm; it may have the message all the same.
    pub async fn send_reliable(
        &self,
        name: &str,
        payload: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        let to = self.live_peer(name).ok_or_else(|| SendError::NotAMember(name.to_owned()))?;
        let (payload, limit) = (payload.into(), self.inner.context.limits.max_user_bytes);
        if payload.len() > limit {
            return Err(SendError::TooLarge { len: payload.len(), limit });
        }
        let dialect = self.inner.dialect_for(&to).await?;
        let inner = &self.inner;
        tokio::select! {
            biased;
            () = inner.commands.closed() => Err(Closed.into()),
            sent = send_user_message(&*inner.transport, &inner.context, to, dialect, payload) => {
                inner.count_layer_fault(sent.as_ref().err()).await;
                Ok(sent?)
            }
        }
    }

    /// For what asks the node's task late or not at all.
    fn check_open(&self) -> Result<(), Closed> {
        if self.inner.commands.is_closed() { Err(Closed) } else { Ok(()) }
    }

    fn live_peer(&self, name: &str) -> Option<Peer> {
        let member = self.inner.shared.hub.member(name).filter(|m| m.state.is_live())?;
        Some(Peer::named(member.addr(), member.id().clone()))
    }

    async fn ask<R>(
        &self,
        command: impl FnOnce(oneshot::Sender<R>) -> Command,
    ) -> Result<R, Closed> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.send(Box::new(command(reply))).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }
}
