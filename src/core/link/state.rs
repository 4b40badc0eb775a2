//! The states of a connection and what each event does, as one pure function.
//!
//! `STATES.md` beside this file is made from it by a test. What a state does by itself with time
//! (repeat the hello, probe) is in [`super::Link::deadline`].

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// Sends hellos and has heard nobody.
    Calling,
    /// Has heard the peer's hello and does not know yet whether the peer hears.
    Answering,
    /// Each end has an echo of its nonce: the streams are open.
    Open,
    /// Open, and this end has finished: what it has still to send is sent, then its end.
    Finishing,
    /// Both ends have finished, all is acknowledged. Only repeats are still answered.
    Closed,
}

/// What can come to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// A hello of a peer not known so far that does not echo our nonce.
    HelloNew,
    /// A hello of a peer not known so far that echoes our nonce.
    HelloNewEcho,
    /// A hello of the known peer that does not echo our nonce.
    HelloKnown,
    /// A hello of the known peer that echoes our nonce.
    HelloKnownEcho,
    /// A packet whose CRC has the connection's key.
    Packet,
    /// Both ends' streams have come to their ends and are acknowledged.
    AllDone,
    /// The caller has nothing more to send.
    Finish,
    /// The caller begins a new connection.
    Restart,
}

/// What is to be done, besides the new state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Acts {
    /// The peer of the hello becomes the known peer.
    pub(super) adopt: bool,
    /// Both streams begin again.
    pub(super) reset: bool,
    /// A hello that echoes this hello's nonce goes out.
    pub(super) answer: bool,
    pub(super) report: Option<Report>,
}

/// Which event a transition reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Report {
    Connected,
    Restarted,
    Closed,
}

const NONE: Acts = Acts { adopt: false, reset: false, answer: false, report: None };
const ANSWER: Acts = Acts { answer: true, ..NONE };
const ADOPT: Acts = Acts { adopt: true, reset: false, answer: true, report: None };
const CONNECT: Acts = Acts { report: Some(Report::Connected), ..NONE };

/// Runs one step of the machine. `None`: the event means nothing in this state and is ignored.
pub(super) const fn next(state: State, input: Input) -> Option<(State, Acts)> {
    use Input as I;
    use State as S;
    Some(match (state, input) {
        (S::Calling | S::Answering, I::HelloNew) => (S::Answering, ADOPT),
        (S::Calling | S::Answering, I::HelloNewEcho) => {
            (S::Open, Acts { report: Some(Report::Connected), ..ADOPT })
        }
        (S::Answering, I::HelloKnown) => (S::Answering, ANSWER),
        (S::Answering, I::HelloKnownEcho) => (S::Open, Acts { answer: true, ..CONNECT }),
        (S::Answering, I::Packet) => (S::Open, CONNECT),
        // Perhaps a stray from the past: only a hello that echoes what we answer is believed.
        (S::Open | S::Finishing, I::HelloNew) => (state, ANSWER),
        (S::Open | S::Finishing, I::HelloNewEcho) => {
            (S::Open, Acts { reset: true, report: Some(Report::Restarted), ..ADOPT })
        }
        (S::Open | S::Finishing, I::HelloKnown | I::HelloKnownEcho) => (state, ANSWER),
        (S::Open | S::Finishing | S::Closed, I::Packet) => (state, NONE),
        (S::Finishing, I::AllDone) => (S::Closed, Acts { report: Some(Report::Closed), ..NONE }),
        (S::Open, I::Finish) => (S::Finishing, NONE),
        (S::Calling | S::Answering, I::Finish) => (S::Closed, Acts { report: Some(Report::Closed), ..NONE }),
        (_, I::Restart) => (S::Calling, Acts { reset: true, ..NONE }),
        (S::Calling, I::HelloKnown | I::HelloKnownEcho | I::Packet)
        | (S::Calling | S::Answering | S::Open | S::Closed, I::AllDone)
        | (S::Finishing | S::Closed, I::Finish)
        | (S::Closed, I::HelloNew | I::HelloNewEcho | I::HelloKnown | I::HelloKnownEcho) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    fn table() -> String {
        let states = [State::Calling, State::Answering, State::Open, State::Finishing, State::Closed];
        let inputs = [
            (Input::HelloNew, "hello of a new peer"),
            (Input::HelloNewEcho, "hello of a new peer, echoing us"),
            (Input::HelloKnown, "hello of the known peer"),
            (Input::HelloKnownEcho, "hello of the known peer, echoing us"),
            (Input::Packet, "packet with the connection's key"),
            (Input::AllDone, "both streams ended and acknowledged"),
            (Input::Finish, "caller: finish"),
            (Input::Restart, "caller: restart"),
        ];
        let mut all = String::from(
            "# The link: states × events\n\nMade from `state.rs`, compared by a test (`UPDATE=1 cargo test -p packmule-core --lib link::state` renews it).\n\
             *adopt*: this becomes the known peer. *reset*: both streams begin again. *answer*: a hello that echoes its nonce\n\
             (in an open connection only if its sender says that it is not yet open, or is new). **Bold**: the event reported. `–`: ignored.\n\n| event |",
        );
        states.iter().for_each(|s| all += &format!(" {s:?} |"));
        all += "\n|---|---|---|---|---|---|\n";
        for (input, name) in inputs {
            all += &format!("| {name} |");
            for state in states {
                let Some((to, acts)) = next(state, input) else {
                    all += " – |";
                    continue;
                };
                let mut cell = if to == state { String::from("stay") } else { format!("→ {to:?}") };
                for (on, message) in
                    [(acts.adopt, ", adopt"), (acts.reset, ", reset"), (acts.answer, ", answer")]
                {
                    cell += if on { message } else { "" };
                }
                match acts.report {
                    Some(Report::Restarted) => cell += ", **PeerRestarted, Connected**",
                    Some(report) => cell += &format!(", **{report:?}**"),
                    None => {}
                }
                all += &format!(" {cell} |");
            }
            all += "\n";
        }
        all
    }

    #[test]
    fn the_table_in_the_docs_is_the_machine() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("link/STATES.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, table()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), table(), "see {}", path.display());
    }
}
