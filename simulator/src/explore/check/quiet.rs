//! Nothing changes in the members' views once all agree and nothing disturbs: no event about a process
//! that nobody has touched since.

use memberlist_protocol::Event;

use super::{Check, Scene, Verdict};
use crate::explore::truth::member_of;
use crate::process::Process;

pub(crate) struct Quiet;

impl Check for Quiet {
    fn name(&self) -> &'static str {
        "quiet"
    }

    fn happened(&mut self, scene: &Scene<'_>, process: &Process, event: &Event) -> Verdict {
        let Some(calm) = scene.calm.filter(|calm| calm.is_settled(scene.at)) else { return Ok(()) };
        // Who has left hears of the others by chance, and its view is nobody's concern.
        if !scene.truth.subject(process.id).is_member() {
            return Ok(());
        }
        let about = match event {
            Event::Refuted { .. } => Some(process.id),
            // The dead are forgotten when their time is over.
            _ => member_of(event).and_then(|member| scene.truth.process_of(member.id())),
        };
        let Some(about) = about else { return Ok(()) };
        if !calm.is_untouched(scene.truth.subject(about)) {
            return Ok(());
        }
        let what = match member_of(event) {
            Some(member) => format!("took n{about} for {}", member.state),
            None => "contradicted an accusation".to_owned(),
        };
        Err(format!(
            "n{} {what}, {:.1} s after all views agreed",
            process.id,
            (scene.at - calm.settled).as_secs_f64()
        ))
    }
}
