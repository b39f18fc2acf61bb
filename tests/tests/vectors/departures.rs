//! Where this library means to differ from Go: the whole list. Each is tested like any other
//! expectation, and has examples of its own.

use memberlist_protocol::{MAX_INCARNATION, MAX_INCARNATION_JUMP, NodeState};
use serde_json::{Value, json};

use super::transitions::{Given, Inputs, KNOWN, Subject};

/// A difference that is meant.
pub(crate) struct Departure {
    applies: fn(&Inputs) -> bool,
    pub(crate) reason: &'static str,
    /// Turns Go's expectation into ours.
    pub(crate) instead: fn(&Inputs, &mut Value),
    /// Initial state and message of cases that show it.
    pub(crate) examples: &'static [(&'static str, &'static str)],
}

pub(crate) const ALL: &[Departure] = &[
    Departure {
        applies: |inputs| {
            inputs.subject == Subject::Other(Some(NodeState::Left))
                && is_claim_of_name(inputs)
                && in_range(inputs)
                && inputs.message.incarnation() <= KNOWN
        },
        reason: "a forged farewell must not hand the name over to the next process that claims it",
        instead: |inputs, expect| {
            *expect = inputs.unchanged();
            expect["dropped"] = json!(["name_taken"]);
        },
        examples: &[("left", "alive(new addr inc=5)"), ("left", "alive(new port inc=1)")],
    },
    Departure {
        applies: |inputs| {
            is_unintelligible(inputs) && !matches!(inputs.subject, Subject::Own { .. })
        },
        reason: "a member that nobody here could talk to would make every push/pull fail",
        instead: |inputs, expect| {
            *expect = inputs.unchanged();
            expect["dropped"] = json!(["incompatible"]);
        },
        examples: &[
            ("unknown", "alive(vsn pcur outside range inc=5)"),
            ("alive", "alive(vsn pcur outside range inc=6)"),
        ],
    },
    Departure {
        applies: |inputs| {
            let incarnation = inputs.message.incarnation();
            let judged = match (&inputs.message, inputs.subject) {
                (Given::PushPull { state: None, .. }, _) => false,
                (_, Subject::Own { leaving: true }) => false,
                (Given::Alive { .. }, _) => true,
                (Given::PushPull { state, .. }, Subject::Other(None)) => {
                    *state == Some(NodeState::Alive)
                }
                // A known node's accuser; an incarnation below the known one is ignored anyway.
                (_, Subject::Other(None)) => false,
                _ => incarnation > KNOWN || is_alive(inputs),
            };
            judged && !is_refused_before(inputs) && !in_range(inputs)
        },
        reason: "no living node is at incarnation 0, and above 2^31 - 1 nobody could refute",
        instead: |inputs, expect| {
            *expect = inputs.unchanged();
            expect["dropped"] = json!(["incarnation_out_of_range"]);
        },
        examples: &[
            ("unknown", "alive(same addr, same meta inc=0)"),
            ("alive", "suspect(inc=2147483648 from=o1)"),
            ("alive", "dead(inc=4294967295 from=bar)"),
            ("suspect", "alive(new addr inc=0)"),
            ("left", "alive(new addr inc=4294967295)"),
            ("unknown", "pushpull(state=alive inc=4294967295)"),
            ("self", "dead(inc=4294967295 from=o1)"),
            ("self", "alive(identical inc=4294967295)"),
        ],
    },
    Departure {
        applies: |inputs| {
            let judged = match (&inputs.message, inputs.subject) {
                (Given::PushPull { state: None, .. }, _) => false,
                (_, Subject::Own { leaving: true } | Subject::Other(None)) => false,
                // Go sees a conflict there and changes nothing either.
                _ if inputs.initial() != Some(NodeState::Left) => !is_claim_of_name(inputs),
                _ => true,
            };
            // What a node says of itself after an accusation must be in the reach of others.
            let own = matches!(inputs.subject, Subject::Own { .. });
            let said = inputs.message.incarnation().saturating_add(u32::from(own));
            let jump = said.saturating_sub(KNOWN) > MAX_INCARNATION_JUMP;
            judged && jump && !is_refused_before(inputs) && in_range(inputs)
        },
        reason: "one packet must not bring a node near the incarnation from which it cannot refute",
        instead: |inputs, expect| {
            *expect = inputs.unchanged();
            expect["dropped"] = json!(["incarnation_jump"]);
        },
        examples: &[
            ("alive", "alive(same addr, new meta inc=1048582)"),
            ("alive", "suspect(inc=1048582 from=o1)"),
            ("dead", "pushpull(state=alive inc=2147483647)"),
            ("left", "alive(new addr inc=2147483647)"),
            ("self", "suspect(inc=2147483647 from=o1)"),
        ],
    },
];

/// Those that a case falls under.
pub(crate) fn of(inputs: &Inputs) -> impl Iterator<Item = &'static Departure> {
    ALL.iter().filter(|departure| (departure.applies)(inputs))
}

fn in_range(inputs: &Inputs) -> bool {
    (1..=MAX_INCARNATION).contains(&inputs.message.incarnation())
}

fn is_alive(inputs: &Inputs) -> bool {
    let alive = Some(NodeState::Alive);
    match &inputs.message {
        Given::Alive { .. } => true,
        Given::PushPull { state, .. } => *state == alive,
        _ => false,
    }
}

fn is_claim_of_name(inputs: &Inputs) -> bool {
    let moved = ["new addr", "new port", "other addr"];
    matches!(&inputs.message, Given::Alive { what, .. } if moved.contains(&what.as_str()))
}

/// A version that is not in the node's own range.
fn is_unintelligible(inputs: &Inputs) -> bool {
    matches!(&inputs.message, Given::Alive { what, .. } if what == "vsn pcur outside range")
}

fn is_refused_before(inputs: &Inputs) -> bool {
    let own = matches!(inputs.subject, Subject::Own { .. });
    has_bad_versions(inputs) || (is_unintelligible(inputs) && !own)
}

/// Go refuses these as well, before it looks at anything else.
fn has_bad_versions(inputs: &Inputs) -> bool {
    let bad = ["vsn pmin 0", "vsn pmax 0", "vsn pmin>pmax"];
    matches!(&inputs.message, Given::Alive { what, .. } if bad.contains(&what.as_str()))
}
