//! The states of a session and what each event does, as one pure function.
//!
//! `STATES.md` beside this file is made from it by a test. What a state does by itself with time is in
//! [`super::Session::tick`], what it sends in `outgoing.rs`.

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// The hello is ready to go out; the peer's has not come.
    Hello,
    /// The peer's hello has come; its proof has not.
    Proof,
    /// The peer has proved who it is; what it has is not known yet.
    Greeting,
    /// What the peer has is known: frames go both ways.
    Open,
    /// This end sends no more frames. It still takes in and acknowledges what comes.
    Leaving,
    /// No more: an error, the peer's refusal or the caller ended the session.
    Over,
}

/// What can happen to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// A hello of a trusted device, or of one that may be.
    Hello,
    /// That a fleet key follows another one.
    Follows,
    /// A proof that is valid.
    Proof,
    /// What the peer has beyond its vector.
    Here,
    /// The peer's version vector, or what changed in it.
    Header,
    /// A certificate, a section, a frame or a checkpoint; a state that is offered, or a part of it.
    Content,
    /// How much is to come, or that this device is behind; its own newest checkpoint; an answer to the state that was
    /// offered.
    Figure,
    /// The peer has nothing more to send for now.
    Idle,
    /// The peer has committed everything before our idle.
    Settled,
    /// The peer sends no more frames.
    Bye,
    /// The peer goes no further.
    Refused,
    /// The caller wants no more.
    Finish,
    /// The stream broke off.
    Abandon,
    /// Something is wrong with the peer, what it sent, or the log.
    Failure,
}

/// What is to be done, besides the new state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Acts {
    /// This end owes its proof.
    pub(super) prove: bool,
    /// It owes what it has: beyond its vector, then the vector.
    pub(super) introduce: bool,
    /// It owes the plan, and looks up what the peer lacks.
    pub(super) plan: bool,
    /// What is staged is committed.
    pub(super) commit: bool,
    /// What the peer has acknowledged is recorded.
    pub(super) record: bool,
    /// What is staged is dropped.
    pub(super) discard: bool,
    /// It owes its bye, and breaks off the group that it sends.
    pub(super) bye: bool,
    /// It owes its refusal: why it goes no further.
    pub(super) refuse: bool,
}

const NONE: Acts = Acts {
    prove: false,
    introduce: false,
    plan: false,
    commit: false,
    record: false,
    discard: false,
    bye: false,
    refuse: false,
};
const COMMIT: Acts = Acts { commit: true, ..NONE };
const RECORD: Acts = Acts { record: true, ..NONE };
const KEEP: Acts = Acts { commit: true, record: true, ..NONE };

/// Runs one step of the machine. `None`: the event is out of turn in this state.
pub(super) const fn next(state: State, input: Input) -> Option<(State, Acts)> {
    use Input as I;
    use State as S;
    Some(match (state, input) {
        (S::Hello, I::Hello) => (S::Proof, Acts { prove: true, ..NONE }),
        (S::Proof, I::Follows) => (state, NONE),
        (S::Proof, I::Proof) => (S::Greeting, Acts { introduce: true, ..NONE }),
        (S::Greeting | S::Leaving, I::Here) => (state, NONE),
        (S::Greeting, I::Header) => (S::Open, Acts { plan: true, ..NONE }),
        (S::Open | S::Leaving, I::Header) => (state, NONE),
        (S::Greeting | S::Open | S::Leaving, I::Content | I::Figure) => (state, NONE),
        (S::Greeting | S::Open | S::Leaving, I::Idle) => (state, COMMIT),
        (S::Greeting | S::Open | S::Leaving, I::Settled) => (state, RECORD),
        (S::Greeting | S::Open | S::Leaving, I::Bye) => (state, KEEP),
        (S::Hello | S::Proof, I::Finish) => (S::Over, NONE),
        (S::Greeting | S::Open, I::Finish) => (S::Leaving, Acts { bye: true, ..KEEP }),
        (S::Leaving, I::Finish) => (S::Leaving, KEEP),
        (_, I::Abandon) => (S::Over, KEEP),
        // What came before the peer gave up is as good as it was.
        (S::Hello | S::Proof | S::Greeting | S::Open | S::Leaving, I::Refused) => (S::Over, NONE),
        // What came before something wrong did is of the same hand.
        (S::Hello | S::Proof | S::Greeting | S::Open | S::Leaving, I::Failure) => {
            (S::Over, Acts { discard: true, refuse: true, ..NONE })
        }
        (S::Proof | S::Greeting | S::Open | S::Leaving, I::Hello)
        | (S::Hello | S::Greeting | S::Open | S::Leaving, I::Follows | I::Proof)
        | (S::Hello | S::Proof | S::Open, I::Here)
        | (S::Hello | S::Proof, I::Header | I::Content | I::Figure | I::Idle | I::Settled | I::Bye)
        | (S::Over, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    const STATES: [State; 6] =
        [State::Hello, State::Proof, State::Greeting, State::Open, State::Leaving, State::Over];

    fn table() -> String {
        let inputs = [
            (Input::Hello, "peer: hello, trusted, or its proof decides"),
            (Input::Follows, "peer: follows"),
            (Input::Proof, "peer: proof, valid"),
            (Input::Here, "peer: here"),
            (Input::Header, "peer: header"),
            (Input::Content, "peer: certificate, section, frame, checkpoint, offer, chunk"),
            (Input::Figure, "peer: plan, behind, newest, want, decline, took"),
            (Input::Idle, "peer: idle"),
            (Input::Settled, "peer: settled"),
            (Input::Bye, "peer: bye"),
            (Input::Refused, "peer: refused"),
            (Input::Finish, "caller: finish"),
            (Input::Abandon, "caller: abandon"),
            (Input::Failure, "anything wrong, out of turn included"),
        ];
        let mut all = String::from(
            "# The session: states × events\n\nMade from `state.rs`, compared by a test (`UPDATE=1 cargo test -p packmule-core --lib session::state` renews it).\n\
             *prove*: the proof is owed. *introduce*: what is here is owed. *plan*: the plan is owed, and what the peer lacks is looked up. *commit*: what is\n\
             staged is committed. *record*: what the peer acknowledged is recorded. *discard*: what is staged is dropped. *bye*, *refuse*: these messages are owed.\n\
             `–`: out of turn, which is a failure; in Over it is ignored.\n\n| event |",
        );
        STATES.iter().for_each(|s| all += &format!(" {s:?} |"));
        all += "\n|---|---|---|---|---|---|---|\n";
        for (input, name) in inputs {
            all += &format!("| {name} |");
            for state in STATES {
                let Some((to, acts)) = next(state, input) else {
                    all += " – |";
                    continue;
                };
                let mut cell = if to == state { String::from("stay") } else { format!("→ {to:?}") };
                for (on, word) in [
                    (acts.prove, ", prove"),
                    (acts.introduce, ", introduce"),
                    (acts.plan, ", plan"),
                    (acts.commit, ", commit"),
                    (acts.record, ", record"),
                    (acts.discard, ", discard"),
                    (acts.bye, ", bye"),
                    (acts.refuse, ", refuse"),
                ] {
                    cell += if on { word } else { "" };
                }
                all += &format!(" {cell} |");
            }
            all += "\n";
        }
        all
    }

    #[test]
    fn the_table_in_the_docs_is_the_machine() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("session/STATES.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, table()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), table(), "see {}", path.display());
    }
}
