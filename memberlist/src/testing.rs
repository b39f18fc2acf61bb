//! Parts of a node by themselves, for benchmarks and tests. Not for applications: what is here may
//! change at any time.

use std::sync::Arc;

use memberlist_protocol::Member;

use crate::check::layers;
use crate::config::Config;
use crate::error::StartError;
use crate::events::{Event, Hub, Notice};
use crate::layers::{LayerError, Layers};
use crate::meter::Meter;

/// What a node with these settings puts around its packets.
pub struct NodeLayers(Layers);

impl NodeLayers {
    /// As [`Builder::start`](crate::Builder::start) makes them.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        layers(config).map(Self)
    }

    /// The bytes in front of a packet's content.
    pub fn head(&self) -> usize {
        self.0.wrapping().head
    }

    /// Wraps a packet in place, of which the content begins behind the head.
    ///
    /// # Errors
    /// If it cannot be sealed.
    pub fn wrap(&self, packet: &mut Vec<u8>) -> Result<(), LayerError> {
        self.0.wrap(packet, self.0.wrapping())
    }

    /// Unwraps a packet in place.
    ///
    /// # Errors
    /// If it is not to be accepted.
    pub fn unwrap<'p>(&self, packet: &'p mut [u8]) -> Result<&'p [u8], LayerError> {
        self.0.unwrap(packet)
    }
}

/// The view of the cluster that a handle shows.
pub struct PublishedView(Hub);

impl Default for PublishedView {
    fn default() -> Self {
        Self(Hub::new(Meter::of(&Config::lan("a"))))
    }
}

impl PublishedView {
    /// A member is new, or has changed.
    pub fn update(&self, member: Member) {
        self.0.publish(Notice::Event(Event::Updated(member)));
    }

    /// All members by name.
    pub fn members(&self) -> Arc<[Member]> {
        self.0.members()
    }
}
