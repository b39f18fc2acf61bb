//! Delta sync, when: two nodes whose views differ exchange what differs ([`compare`](super::compare) says
//! how).
//!
//! With `w` the time that gossip may take (the patience), `A` and `B` the views of two nodes, and `d` their
//! digests, a node begins a sync
//!
//! ```text
//! if d(A) ≠ d(B) was shown, and nobody else showed d(A) for w to 1.5 w
//! (in a crowd, where A has changed 8 times and more and less than 4 w ago, 3 have to show it);
//! with one member at one d(A), d(B):  a third time only after 2 w, then 4 w, 8 w, 16 w, 16 w ...
//! with all together:                  at most 20 times in 10 s
//! ```
//!
//! So a change that reaches everybody by gossip starts no sync, a mass change no storm, and two nodes that
//! never agree cost a sync now and then, a counter and a warning. Who answers nothing is passed over for as
//! long, whatever digests it shows; and who shows the own digest again and again speaks for itself only.
//! What was found to be much is followed by another sync soon.
//!
//! Forged digests make a node compare its members once more than needed, or later; lying lists make it send
//! what the liar could have asked for in a push/pull. All that is learned passes the rules of `transition`,
//! as news from that member would.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::compare::Running;
use super::digest::ViewDigest;
use super::gossip::Outgoing;
use super::rate::Rate;
use super::timer::{Timer, TimerKey};
use super::{Event, Membership, scale};
use crate::config::Config;
use crate::node::{NodeId, NodeState, Peer};
use crate::wire::{Dialect, WireFormat};

/// Syncs that a node begins in this time, at most.
const MOST_BEGUN: (u32, Duration) = (20, Duration::from_secs(10));
/// How many times the patience the time between two attempts may become, as a power of two.
const MOST_DOUBLINGS: u32 = 4;
/// Members that are asked for their view at a time, and in a crowd.
const ASKED: (usize, usize) = (2, 4);
/// So many changes of the view since it was confirmed make a crowd.
const CROWD: u32 = 8;
/// Then so many different members have to show an equal one: two that came together may both lack a third.
const CONFIRMED_IN_CROWD: usize = 3;
/// Until nothing has changed for so many times the patience.
const CROWD_PASSES: u32 = 4;
/// So many syncs that found much are followed by another at once, at most.
const MOST_QUICK: u32 = 8;
/// Members of whom is remembered that comparing did not help.
const MAX_TROUBLES: usize = 16;
/// So many syncs without effect are reported as a disagreement, and again when there are as many more.
const REPORTED: [u32; 2] = [8, 64];
/// Full exchanges are this many times rarer with members that show their digests.
const FULL_EXCHANGE_TURNS: u32 = 10;

/// Whether this node agrees with others, and what it does about it.
#[derive(Debug)]
pub(super) struct DeltaSync {
    /// Since then the own view has changed, or another one was shown, and no equal one.
    differs_since: Option<Instant>,
    /// The own view as it was seen last.
    seen: ViewDigest,
    /// Some were asked for theirs.
    asked: bool,
    /// Who showed another one last, and which.
    partner: Option<(NodeId, u64)>,
    /// Whose equal one has counted last.
    agreed_by: Option<NodeId>,
    /// How often the own view has changed since it was confirmed, and who has shown an equal one since it
    /// last did.
    changes: u32,
    changed_at: Instant,
    confirmed_by: Vec<NodeId>,
    timer: Option<TimerKey>,
    /// Between the last attempt and the next.
    pause: Duration,
    /// How many more attempts may follow at once on one that has found much.
    quick_left: u32,
    troubles: VecDeque<Trouble>,
    /// The own view at the last attempt, and how many in a row there have been with it while nobody agreed.
    tried: u64,
    fruitless: u32,
    begun: Rate,
    pub(super) running: Option<Running>,
    /// Who is asked for its view when all that came is merged.
    pub(super) ask: Option<Peer>,
    pub(super) served: Rate,
    pub(super) served_strangers: Rate,
    /// Periodic exchanges of states so far.
    turns: u32,
}

/// A member with whom comparing did not help.
#[derive(Debug)]
struct Trouble {
    member: NodeId,
    /// The digests of both views before the last sync.
    views: (u64, u64),
    /// It has not answered, whatever it shows.
    unanswered: bool,
    /// Syncs without effect in a row.
    count: u32,
    since: Instant,
    /// Until then there is no other.
    until: Instant,
}

impl DeltaSync {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            differs_since: None,
            seen: ViewDigest::default(),
            asked: false,
            partner: None,
            agreed_by: None,
            changes: 0,
            changed_at: now,
            confirmed_by: Vec::new(),
            timer: None,
            pause: Duration::ZERO,
            quick_left: MOST_QUICK,
            troubles: VecDeque::new(),
            tried: 0,
            fruitless: 0,
            begun: Rate::new(MOST_BEGUN.1, now),
            running: None,
            ask: None,
            served: Rate::new(Duration::from_secs(1), now),
            served_strangers: Rate::new(Duration::from_secs(1), now),
            turns: 0,
        }
    }

    pub(super) fn differs_since(&self) -> Option<Instant> {
        self.differs_since
    }

    /// This view needs nobody's confirmation.
    pub(super) fn testing_trust(&mut self, view: ViewDigest) {
        self.seen = view;
    }

    /// How many syncs in a row with this member, between these views, were seen to have had no effect.
    fn trouble_with(&self, member: &NodeId, views: (u64, u64)) -> u32 {
        let of = self.troubles.iter().find(|trouble| {
            trouble.member == *member && (trouble.unanswered || trouble.views == views)
        });
        of.map_or(0, |trouble| trouble.count - 1)
    }

    /// Whether comparing with this member, between these views, has not helped lately.
    fn is_futile(&self, member: &NodeId, views: (u64, u64), now: Instant) -> bool {
        self.troubles.iter().any(|trouble| {
            trouble.member == *member
                && now < trouble.until
                && (trouble.unanswered || trouble.views == views)
        })
    }
}

/// How long gossip may take before a difference is one: a tick and a half where news is passed on at once,
/// else the generations that it needs to reach all, and two.
pub(super) fn patience(config: &Config, n: usize) -> Duration {
    if config.gossip_interval.is_zero() || config.gossip_nodes == 0 {
        return Duration::from_secs(1);
    }
    match config.eager_gossip_spacing.is_zero() {
        true => {
            config.gossip_interval.saturating_mul(scale::generations(config.gossip_nodes, n) + 2)
        }
        false => config.gossip_interval.max(config.eager_gossip_spacing).saturating_mul(3) / 2,
    }
}

impl Membership {
    /// Whether this node compares its view with others. Go's format has no words for it.
    pub(super) fn syncs(&self) -> bool {
        let speaks = self.config.wire_format.reads(Dialect::Native);
        self.config.delta_sync && speaks && !self.leaving
    }

    fn patience(&self) -> Duration {
        patience(&self.config, self.members.len())
    }

    /// A member has shown the digest of its view.
    pub(super) fn hear_view(&mut self, from: &NodeId, digest: u64, now: Instant) {
        if !self.syncs() {
            return;
        }
        let Some(record) = self.members.get_mut(from.as_str()) else { return };
        if !record.state().is_live() {
            return;
        }
        record.shows_view = Some(true);
        let own = self.members.view().to_u64();
        self.note_confirmation(from, digest == own, now);
        if digest == own {
            self.stats.views_equal += 1;
            return self.agree(from, now);
        }
        self.stats.views_different += 1;
        if self.sync.is_futile(from, (own, digest), now) {
            return;
        }
        // Rather one with whom comparing has helped, or was not tried.
        let trouble = |member: &NodeId, theirs| self.sync.trouble_with(member, (own, theirs));
        let better =
            |(partner, theirs): &(NodeId, u64)| trouble(partner, *theirs) < trouble(from, digest);
        if !self.sync.partner.as_ref().is_some_and(better) {
            self.sync.partner = Some((from.clone(), digest));
        }
        self.doubt_view(now);
        if std::mem::take(&mut self.sync.asked) && self.sync.running.is_none() {
            self.arm_sync_at(now);
        }
    }

    /// A member has spoken to this one without showing a digest that can be heard.
    pub(super) fn miss_view(&mut self, from: &NodeId) {
        if let Some(record) = self.members.get_mut(from.as_str()) {
            record.shows_view = record.shows_view.or(Some(false));
        }
    }

    /// Whether the own view has changed: then somebody is to confirm it.
    pub(super) fn watch_view(&mut self, now: Instant) {
        if self.sync.seen != self.members.view() {
            self.sync.seen = self.members.view();
            self.sync.changes = self.sync.changes.saturating_add(1);
            self.sync.changed_at = now;
            self.sync.confirmed_by.clear();
            self.doubt_view(now);
        }
    }

    fn doubt_view(&mut self, now: Instant) {
        if self.sync.differs_since.is_none() && self.syncs() {
            self.sync.differs_since = Some(now);
            self.sync.pause = self.patience();
            if self.sync.running.is_none() {
                self.arm_sync(self.sync.pause, now);
            }
        }
    }

    /// A member has shown the own view. One alone cannot speak for others again and again.
    fn agree(&mut self, from: &NodeId, now: Instant) {
        if self.sync.partner.is_some() && self.sync.agreed_by.as_ref() == Some(from) {
            return;
        }
        if !self.is_confirmed(from, now) {
            return;
        }
        self.sync.agreed_by = Some(from.clone());
        self.sync.changes = 0;
        self.sync.confirmed_by.clear();
        self.sync.differs_since = None;
        self.sync.partner = None;
        self.sync.asked = false;
        self.sync.fruitless = 0;
        self.sync.quick_left = MOST_QUICK;
        if self.sync.running.is_none() {
            self.sync.timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        }
    }

    /// Whether an equal view that this member shows is enough, after so many changes. When the crowd has
    /// passed it is: there may be no others that show theirs.
    fn is_confirmed(&mut self, from: &NodeId, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.sync.changed_at);
        if self.sync.changes < CROWD || quiet > CROWD_PASSES * self.patience() {
            return true;
        }
        if !self.sync.confirmed_by.contains(from) {
            self.sync.confirmed_by.push(from.clone());
        }
        let wanted = CONFIRMED_IN_CROWD.min(self.members.live().saturating_sub(1));
        self.sync.confirmed_by.len() >= wanted
    }

    /// The next attempt is due after this, give or take.
    fn arm_sync(&mut self, pause: Duration, now: Instant) {
        let jitter = 1.0 + 0.5 * self.rng.random::<f64>();
        self.arm_sync_at(now + pause.mul_f64(jitter));
    }

    pub(super) fn arm_sync_at(&mut self, at: Instant) {
        self.sync.timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        self.sync.timer = Some(self.timers.arm(at, Timer::SyncDue));
    }

    /// No equal digest has been heard for long enough, or no answer has come.
    pub(super) fn sync_due(&mut self, now: Instant) {
        self.sync.timer = None;
        if let Some(running) = self.sync.running.take() {
            return self.unanswered(running, now);
        }
        if !self.syncs() || self.sync.differs_since.is_none() {
            self.sync.differs_since = None;
            return;
        }
        let Some((peer, theirs)) = self.sync_partner() else {
            return self.ask_some(now);
        };
        if !self.sync.begun.allows(MOST_BEGUN.0, now) {
            return self.arm_sync(self.sync.pause, now);
        }
        let views = (self.members.view().to_u64(), theirs);
        self.begin_sync(peer, views, true, now);
    }

    /// A sync is over, and was answered or not: another one follows if there is still no agreement.
    pub(super) fn sync_ended(&mut self, running: Running, answered: bool, now: Instant) {
        if let Some(member) = running.peer.name {
            self.note_trouble(member, running.views, answered, now);
        }
        let patience = self.patience();
        if answered && running.found_much && self.sync.quick_left > 0 {
            self.sync.quick_left -= 1;
            return self.arm_sync(patience / 4, now);
        }
        self.pause_sync(now);
    }

    fn pause_sync(&mut self, now: Instant) {
        self.arm_sync(self.sync.pause, now);
        let most = self.patience().saturating_mul(1 << MOST_DOUBLINGS);
        self.sync.pause = self.sync.pause.saturating_mul(2).min(most);
    }

    /// Should both show the same views again, this sync has not helped.
    fn note_trouble(&mut self, member: NodeId, views: (u64, u64), answered: bool, now: Instant) {
        let patience = self.patience();
        let at = self.sync.troubles.iter().position(|trouble| trouble.member == member);
        let known = at.and_then(|at| self.sync.troubles.remove(at));
        let (count, since, until) = (0, now, now);
        let new = Trouble { member, views, unanswered: !answered, count, since, until };
        let mut trouble = known.unwrap_or(new);
        let again = (answered && trouble.views == views) || (!answered && trouble.unanswered);
        if !again {
            (trouble.count, trouble.since) = (0, now);
        }
        trouble.count = trouble.count.saturating_add(1);
        (trouble.views, trouble.unanswered) = (views, !answered);
        // One that helps is often followed by another at once: only what is repeated is futile.
        let doublings = (trouble.count - 1).min(MOST_DOUBLINGS);
        trouble.until = now + patience.saturating_mul((1 << doublings) & !1);
        self.sync.fruitless = match self.sync.tried == views.0 {
            true => self.sync.fruitless.saturating_add(1),
            false => 1,
        };
        self.sync.tried = views.0;
        let [first, further] = REPORTED;
        let reported = |count: u32| count == first || count % further == 0;
        if reported(trouble.count) || reported(self.sync.fruitless) {
            self.stats.disagreements += 1;
            let since = self.sync.differs_since.map_or(trouble.since, |at| at.min(trouble.since));
            let member = trouble.member.clone();
            self.events.push_back(Event::Disagreement { member, since });
        }
        if self.sync.troubles.len() == MAX_TROUBLES {
            self.sync.troubles.pop_front();
        }
        self.sync.troubles.push_back(trouble);
    }

    pub(super) fn is_live(&self, peer: &Peer) -> bool {
        let record = peer.name.as_ref().and_then(|name| self.members.get(name.as_str()));
        record.is_some_and(|record| record.state().is_live())
    }

    /// Who showed another digest last, if it is there, and that digest.
    fn sync_partner(&mut self) -> Option<(Peer, u64)> {
        let (partner, theirs) = self.sync.partner.take()?;
        let record = self.members.get(partner.as_str())?;
        let peer = Peer::named(record.node.addr, record.node.id.clone());
        record.state().is_live().then_some((peer, theirs))
    }

    /// Nobody has shown its view since this node's has changed: asks some who may.
    fn ask_some(&mut self, now: Instant) {
        let (own, mixed) = (&self.id, self.config.wire_format == WireFormat::Mixed);
        let asked = if self.sync.changes < CROWD { ASKED.0 } else { ASKED.1 };
        let chosen = self.members.next_in_ring(asked, |record| {
            record.state() == NodeState::Alive
                && record.node.id != *own
                && record.shows_view != Some(false)
                && (record.native || !mixed)
        });
        if chosen.is_empty() {
            // Should one come, its digest begins this anew.
            self.sync.differs_since = None;
            return;
        }
        for position in chosen {
            let node = &self.members.at(position).node;
            let to = Peer::named(node.addr, node.id.clone());
            self.send_later(Outgoing::View { to, ask: true });
        }
        self.sync.asked = true;
        self.pause_sync(now);
    }

    /// Whether a periodic exchange with this member is to be one of whole states.
    pub(super) fn is_full_exchange_due(&mut self, position: usize) -> bool {
        self.sync.turns = self.sync.turns.wrapping_add(1);
        let record = self.members.at(position);
        let peer = Peer::named(record.node.addr, record.node.id.clone());
        !self.config.delta_sync
            || record.shows_view == Some(false)
            || self.dialect_for(&peer) == Dialect::Hashicorp
            || self.sync.turns % FULL_EXCHANGE_TURNS == 0
    }
}
