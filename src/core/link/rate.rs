//! The line's rate: it begins at [`Config::baud`](super::Config::baud), goes up to the highest that both
//! ends allow and the cable carries, and comes back when it is lost there.
//!
//! One end leads: the one with the greater nonce. It proposes, the other agrees, the leader commits; both let
//! their streams rest, set their ports, and go on once each knows that the other hears it. Nothing of
//! this needs to arrive: whoever hears nothing at a raised rate ([`TRIAL_US`] in the trial, [`LOST_US`] after it)
//! returns to the first rate, which both know, so both meet there. `RATES.md` beside this file is the machine, made
//! by a test.
//!
//! A rate that was lost is not proposed again in this connection, unless the line was dead at the first
//! rate as well: that was a cut, and no fault of the rate. So is one out that carries less than the next
//! lower one would. Where one end does not change its rate, nothing is proposed.

use super::adapt::Adapt;
use super::packet::{Step, rate_bytes};
use super::{Link, State};

/// What is tried, besides the highest rate that both ends allow.
const LADDER: [u32; 9] = [19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600, 1_500_000, 3_000_000];
/// A proposal that is not answered for so long is withdrawn.
const PROPOSED_US: u64 = 2_000_000;
/// So long the streams of an end that agreed rest.
const AGREED_US: u64 = 500_000;
/// Both ends must have heard each other so soon at a new rate.
const TRIAL_US: u64 = 500_000;
/// A raised rate at which nothing was heard for so long is lost.
const LOST_US: u64 = 2_000_000;
/// Whoever is alive is heard at the first rate so soon after the return: the other end returns at most
/// [`LOST_US`] later and probes at once.
const CUT_US: u64 = 3_000_000;
/// Between two tries, and between the three copies of what must arrive.
const TRY_US: u64 = 25_000;
const REPEAT_US: u64 = 10_000;
/// After the line has carried everything, for adaptors that hold bytes back.
const GUARD_US: u64 = 20_000;

/// Where the agreement about the rate stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The first rate.
    First,
    /// The leader has proposed a higher one.
    Proposing,
    /// The other end has agreed and waits for the commit.
    Agreed,
    /// The leader sends the commit, three times.
    Committing,
    /// Until the line is empty and the port set.
    Changing,
    /// At the new rate: does each hear the other?
    Trial,
    /// Both do.
    Raised,
    /// The rate carries too little: this end sends that it leaves, three times.
    Leaving,
    /// Until the port is set to the first rate.
    Returning,
}

/// What can come to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    Ready,
    Propose,
    ProposeOut,
    Agree,
    AgreeLower,
    Commit,
    Sent,
    Drained,
    Set,
    NotSet,
    Try,
    Heard,
    Packet,
    Leave,
    Poor,
    Timeout,
    Restart,
}

/// What is to be done, besides the new phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Acts {
    /// Answers what came.
    answer: bool,
    /// The caller is to set the port.
    set: bool,
    /// This rate is out for this connection.
    out: bool,
    /// It is out if the other end is heard soon.
    doubt: bool,
    /// The rate is reported to the caller.
    report: bool,
}

const NONE: Acts = Acts { answer: false, set: false, out: false, doubt: false, report: false };
const ANSWER: Acts = Acts { answer: true, ..NONE };
const SET: Acts = Acts { set: true, ..NONE };
const OUT: Acts = Acts { out: true, ..NONE };
const DOUBT: Acts = Acts { doubt: true, ..NONE };
const REPORT: Acts = Acts { report: true, ..NONE };

/// Runs one step of the machine. `None`: the input means nothing in this phase and is ignored.
pub(super) const fn next(phase: Phase, input: Input) -> Option<(Phase, Acts)> {
    use Input as I;
    use Phase as P;
    Some(match (phase, input) {
        (P::First, I::Ready) => (P::Proposing, NONE),
        (P::First | P::Agreed, I::Propose) => (P::Agreed, ANSWER),
        (P::First | P::Agreed, I::ProposeOut) => (P::First, ANSWER),
        (P::Proposing, I::Agree) => (P::Committing, NONE),
        (P::Proposing, I::AgreeLower) => (P::First, OUT),
        (P::Agreed, I::Commit) | (P::Committing, I::Sent) => (P::Changing, NONE),
        (P::Leaving, I::Sent) => (P::Returning, NONE),
        (P::Changing | P::Returning, I::Drained) => (phase, SET),
        (P::Changing, I::Set) => (P::Trial, NONE),
        (P::Changing, I::NotSet) => (P::First, OUT),
        (P::Returning, I::Set | I::NotSet) => (P::First, REPORT),
        // Our next packet shows that it was heard.
        (P::Trial, I::Try) => (P::Trial, ANSWER),
        (P::Trial, I::Heard) => (P::Raised, Acts { answer: true, ..REPORT }),
        // Who sends these has been heard, and has heard us.
        (P::Trial, I::Packet) => (P::Raised, REPORT),
        (P::Raised, I::Try) => (P::Raised, ANSWER),
        (P::Trial | P::Raised, I::Leave) => (P::Returning, OUT),
        (P::Raised, I::Poor) => (P::Leaving, OUT),
        (P::Proposing, I::Timeout) => (P::First, DOUBT),
        (P::Agreed, I::Timeout) => (P::First, NONE),
        (P::Trial | P::Raised, I::Timeout) => (P::Returning, DOUBT),
        (P::First | P::Proposing | P::Agreed | P::Committing, I::Restart) => (P::First, NONE),
        (P::Changing | P::Trial | P::Raised | P::Leaving | P::Returning, I::Restart) => (P::Returning, NONE),
        _ => return None,
    })
}

/// What an end knows of the rates.
pub(super) struct Rate {
    phase: Phase,
    /// What the port is set to.
    pub(super) at: u32,
    /// What it is to be set to.
    wanted: u32,
    /// What is negotiated, tried or used besides the first rate.
    target: u32,
    /// Rates from here on are out.
    ceiling: u32,
    /// When the phase's next message is due, and how many are left.
    due: u64,
    left: u8,
    answer: Option<(Step, u32)>,
    /// When the phase ends by itself.
    until: u64,
    /// A lost rate (or 0), and when it was lost.
    doubt: (u32, u64),
    /// The other end was heard since the port was set.
    heard: bool,
    /// What was reported to the caller, and whether there is something to report.
    reported: u32,
    event_due: bool,
    /// For a test: never returns by itself.
    #[cfg(test)]
    pub(super) stubborn: bool,
}

impl Rate {
    pub(super) const fn new(first: u32) -> Self {
        Self {
            phase: Phase::First,
            at: first,
            wanted: first,
            target: first,
            ceiling: u32::MAX,
            due: 0,
            left: 0,
            answer: None,
            until: 0,
            doubt: (0, 0),
            heard: false,
            reported: first,
            event_due: false,
            #[cfg(test)]
            stubborn: false,
        }
    }

    /// Returns whether data, acknowledgements, probes and hellos may go out.
    pub(super) const fn flows(&self) -> bool {
        matches!(self.phase, Phase::First | Phase::Proposing | Phase::Raised)
    }

    /// Returns the rate that is to be reported to the caller, once.
    pub(super) fn take_event(&mut self) -> Option<u32> {
        core::mem::take(&mut self.event_due).then_some(self.reported)
    }

    /// Returns when the next rate message is due.
    pub(super) fn message_at(&self) -> Option<u64> {
        let says = match self.phase {
            Phase::Proposing | Phase::Trial => true,
            Phase::Committing | Phase::Leaving => self.left > 0,
            _ => false,
        };
        if self.answer.is_some() { Some(0) } else { says.then_some(self.due) }
    }

    /// Returns the rate message that is due now; `every`: between two proposals.
    fn message(&mut self, now: u64, every: u64) -> (Step, u32) {
        if let Some(answer) = self.answer.take() {
            return answer;
        }
        self.left = self.left.saturating_sub(1);
        let (step, wait) = match self.phase {
            Phase::Committing => (Step::Commit, REPEAT_US),
            Phase::Leaving => (Step::Leave, REPEAT_US),
            Phase::Trial if self.heard => (Step::Heard, TRY_US),
            Phase::Trial => (Step::Try, TRY_US),
            _ => (Step::Propose, every),
        };
        self.due = now + wait;
        (step, self.target)
    }

    /// Returns the highest rate over `first`, under `below` and up to `top` that may be tried.
    fn best(first: u32, top: u32, below: u32) -> Option<u32> {
        let fits = |rate: &u32| *rate > first && *rate < below && *rate <= top;
        LADDER.into_iter().chain([top]).filter(fits).max()
    }
}

impl<const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize>
    Link<TX, RX, PACKET, FLIGHT>
{
    /// Returns the rate that the line runs at, bits a second: what a port that is opened again is set to.
    pub const fn baud(&self) -> u32 {
        self.rate.at
    }

    /// Returns the rate that the port is to be set to now, if it is another: once what was written has left it.
    /// What came and was not read is noise. Then [`Link::set_baud`].
    pub fn baud_wanted(&self) -> Option<u32> {
        (self.rate.wanted != self.rate.at).then_some(self.rate.wanted)
    }

    /// Handles that the port was to be set to another rate, and runs at `baud` now: at the old one if it could not be
    /// set.
    pub fn set_baud(&mut self, now: u64, baud: u32) {
        let Some(wanted) = self.baud_wanted() else { return };
        self.rate.wanted = baud;
        self.rate.at = baud;
        self.input.reset();
        self.line_free = self.line_free.min(now);
        self.step_rate(now, if baud == wanted { Input::Set } else { Input::NotSet });
    }

    /// Returns up to which rate both ends allow.
    fn top(&self) -> u32 {
        let peer = self.hand.peer.as_ref().filter(|peer| peer.changes_baud);
        peer.map_or(0, |peer| peer.baud_max.min(self.config.baud_max))
    }

    fn best_below(&self, below: u32) -> Option<u32> {
        Rate::best(self.config.baud, self.top(), below)
    }

    /// Returns what happens next by itself, and when.
    fn rate_next(&self) -> Option<(u64, Input)> {
        let rate = &self.rate;
        match rate.phase {
            Phase::First => {
                let ready = matches!(self.hand.state, State::Open | State::Finishing)
                    && rate.heard
                    && rate.doubt.0 == 0
                    && self.hand.leads()
                    && self.best_below(rate.ceiling).is_some();
                ready.then_some((0, Input::Ready))
            }
            #[cfg(test)]
            Phase::Trial | Phase::Raised if rate.stubborn => None,
            Phase::Proposing | Phase::Agreed | Phase::Trial => Some((rate.until, Input::Timeout)),
            Phase::Committing | Phase::Leaving => (rate.left == 0).then_some((0, Input::Sent)),
            Phase::Changing | Phase::Returning => {
                self.baud_wanted().is_none().then_some((self.line_free + GUARD_US, Input::Drained))
            }
            Phase::Raised if self.is_poor() => Some((0, Input::Poor)),
            Phase::Raised => Some((self.hand.heard + LOST_US, Input::Timeout)),
        }
    }

    /// Returns whether the line carries less than the next lower rate would, with a tenth of that to spare for its
    /// own losses.
    fn is_poor(&self) -> bool {
        let lower = self.best_below(self.rate.target).unwrap_or(self.config.baud);
        u64::from(self.adapt.share()) * u64::from(self.rate.at) < 900 * u64::from(lower)
    }

    /// Returns when the rate's next change is due.
    pub(super) fn rate_at(&self) -> Option<u64> {
        self.rate_next().map(|(at, _)| at)
    }

    /// Lets time pass.
    pub(super) fn watch_rate(&mut self, now: u64) {
        // A change leads to at most two more at the same moment.
        for _ in 0..4 {
            match self.rate_next() {
                Some((at, input)) if at <= now => self.step_rate(now, input),
                _ => break,
            }
        }
    }

    fn step_rate(&mut self, now: u64, input: Input) {
        let before = self.rate.phase;
        let Some((phase, acts)) = next(before, input) else { return };
        // When the rate's loss was due: perhaps nobody looked for a while, as while a port was gone.
        let lost = match before {
            Phase::Raised => self.hand.heard + LOST_US,
            _ => self.rate.until,
        };
        self.rate.phase = phase;
        if acts.out {
            self.rate.ceiling = self.rate.ceiling.min(self.rate.target);
        }
        if acts.doubt {
            self.rate.doubt = (self.rate.target, lost);
        }
        if acts.answer && matches!(phase, Phase::Trial | Phase::Raised) {
            self.rate.heard = true;
            if phase == Phase::Raised {
                self.rate.answer = Some((Step::Heard, self.rate.target));
            }
        }
        if phase != before {
            self.enter(now, phase);
        }
        if acts.report && self.rate.reported != self.rate.at {
            self.rate.reported = self.rate.at;
            self.rate.event_due = true;
        }
        if acts.set {
            self.rate.wanted = if phase == Phase::Changing { self.rate.target } else { self.config.baud };
            if self.baud_wanted().is_none() {
                self.step_rate(now, Input::Set);
            }
        }
    }

    fn enter(&mut self, now: u64, phase: Phase) {
        // On a slow line messages take their time.
        let slow = 32 * self.air_us(16);
        self.rate.due = now;
        match phase {
            Phase::First => {
                self.rate.heard = false;
                self.asked = 0;
            }
            Phase::Proposing => {
                self.rate.target = self.best_below(self.rate.ceiling).unwrap_or(self.config.baud);
                self.rate.until = now + PROPOSED_US + slow;
            }
            Phase::Agreed => self.rate.until = now + AGREED_US + slow,
            Phase::Trial => {
                self.rate.heard = false;
                self.rate.until = now + TRIAL_US + slow;
            }
            Phase::Raised => self.asked = 0,
            Phase::Committing | Phase::Leaving => self.rate.left = 3,
            Phase::Changing | Phase::Returning => {}
        }
        if matches!(phase, Phase::Changing | Phase::Returning) {
            self.rate.answer = None;
            // Another rate is another line.
            self.adapt = Adapt::new();
        }
    }

    /// Handles that something valid has come.
    pub(super) fn rate_heard(&mut self, now: u64) {
        if self.rate.at != self.config.baud || !self.rate.flows() {
            return;
        }
        self.rate.heard = true;
        let (lost, since) = core::mem::take(&mut self.rate.doubt);
        if lost != 0 && now <= since + CUT_US {
            self.rate.ceiling = self.rate.ceiling.min(lost);
        }
    }

    /// Handles a packet that is no rate message.
    pub(super) fn rate_packet(&mut self, now: u64) {
        self.step_rate(now, Input::Packet);
    }

    /// Receives a rate message.
    pub(super) fn receive_rate_message(&mut self, now: u64, step: Step, baud: u32) {
        let ours = baud == self.rate.target;
        let input = match step {
            Step::Propose => {
                let below = self.rate.ceiling.min(baud.saturating_add(1));
                let best = self.best_below(below).unwrap_or(0);
                if matches!(self.rate.phase, Phase::First | Phase::Agreed) {
                    self.rate.answer = Some((Step::Agree, best));
                    if best == baud {
                        self.rate.target = baud;
                    }
                }
                if best == baud { Input::Propose } else { Input::ProposeOut }
            }
            Step::Agree if ours => Input::Agree,
            Step::Agree if self.rate.phase == Phase::Proposing && baud < self.rate.target => {
                self.rate.ceiling = self.rate.ceiling.min(baud.saturating_add(1));
                Input::AgreeLower
            }
            Step::Commit if ours => Input::Commit,
            Step::Try if ours => Input::Try,
            Step::Heard if ours => Input::Heard,
            Step::Leave if ours => Input::Leave,
            _ => return,
        };
        self.step_rate(now, input);
    }

    /// Restarts the rate with the connection.
    pub(super) fn restart_rate(&mut self) {
        (self.rate.ceiling, self.rate.doubt, self.rate.answer) = (u32::MAX, (0, 0), None);
        let now = self.line_free;
        self.step_rate(now, Input::Restart);
    }

    /// Returns how often an idle connection is probed: at a raised rate, several times before it is given up.
    pub(super) fn keep_alive_us(&self) -> u64 {
        let most = if self.rate.phase == Phase::Raised { LOST_US / 4 } else { u64::MAX };
        u64::from(self.config.keep_alive_us).min(most)
    }

    pub(super) fn write_rate_message(&mut self, now: u64, out: &mut [u8], lead: bool) -> usize {
        let every = self.probe_us();
        let (step, baud) = self.rate.message(now, every);
        self.write_packet(out, lead, &rate_bytes(step, baud), (&[], &[]), self.hand.key_out())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    const PHASES: [Phase; 9] = [
        Phase::First,
        Phase::Proposing,
        Phase::Agreed,
        Phase::Committing,
        Phase::Changing,
        Phase::Trial,
        Phase::Raised,
        Phase::Leaving,
        Phase::Returning,
    ];

    const INPUTS: [(Input, &str); 17] = [
        (Input::Ready, "leads, is open, and a higher rate is left to try"),
        (Input::Propose, "proposal"),
        (Input::ProposeOut, "proposal of a rate that is out here"),
        (Input::Agree, "agreement"),
        (Input::AgreeLower, "agreement to a lower rate, or none"),
        (Input::Commit, "commit"),
        (Input::Sent, "sent three times"),
        (Input::Drained, "the line is empty"),
        (Input::Set, "caller: the port is set"),
        (Input::NotSet, "caller: it cannot be set"),
        (Input::Try, "try"),
        (Input::Heard, "heard"),
        (Input::Packet, "any other packet of the connection"),
        (Input::Leave, "leave"),
        (Input::Poor, "the next lower rate would carry more"),
        (Input::Timeout, "its time is over"),
        (Input::Restart, "the connection restarts"),
    ];

    fn table() -> String {
        let mut all = String::from(
            "# The rate: phases × events\n\nMade from `rate.rs`, compared by a test (`UPDATE=1 cargo test -p packmule-core --lib link::rate` renews it).\n\
             *answer*: sends so. *set*: the caller is asked to set the port. *out*: this rate is not used again in this connection.\n\
             *doubt*: it is out if the other end is heard at the first rate within 3 s; else the line was cut. **Baud**: the event reported. `–`: ignored.\n\
             The streams rest in Agreed, Committing, Changing, Trial, Leaving and Returning. By itself: Proposing repeats the proposal, Trial sends *try*,\n\
             or *heard* once it has heard, every 25 ms; Committing and Leaving send their message three times. Times: Proposing 2 s, Agreed and Trial 0.5 s (on a\n\
             slow line 512 bytes more); Raised when nothing was heard for 2 s.\n\n| event |",
        );
        PHASES.iter().for_each(|phase| all += &format!(" {phase:?} |"));
        all += &format!("\n|{}\n", "---|".repeat(PHASES.len() + 1));
        for (input, name) in INPUTS {
            all += &format!("| {name} |");
            for phase in PHASES {
                let Some((to, acts)) = next(phase, input) else {
                    all += " – |";
                    continue;
                };
                let mut cell = if to == phase { String::from("stay") } else { format!("→ {to:?}") };
                for (on, message) in [
                    (acts.answer, ", answer"),
                    (acts.set, ", set"),
                    (acts.out, ", out"),
                    (acts.doubt, ", doubt"),
                    (acts.report, ", **Baud**"),
                ] {
                    cell += if on { message } else { "" };
                }
                all += &format!(" {cell} |");
            }
            all += "\n";
        }
        all
    }

    #[test]
    fn the_table_in_the_docs_is_the_machine() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("link/RATES.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, table()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), table(), "see {}", path.display());
    }

    /// Wherever an end is, time or a restart leads it back to the first rate.
    #[test]
    fn every_phase_leads_back_by_itself() {
        for start in PHASES {
            let mut phase = start;
            for _ in 0..PHASES.len() {
                let alone = [Input::Timeout, Input::Sent, Input::Drained, Input::Set];
                let to = alone.into_iter().find_map(|i| next(phase, i).filter(|n| n.0 != phase));
                phase = to.map_or(phase, |to| to.0);
            }
            assert!(matches!(phase, Phase::First), "{start:?} ends in {phase:?}");
            let (back, _) = next(start, Input::Restart).unwrap();
            assert!(matches!(back, Phase::First | Phase::Returning));
        }
    }

    #[test]
    fn the_next_rate_is_the_highest_that_is_left() {
        assert_eq!(Rate::best(115_200, 3_000_000, u32::MAX), Some(3_000_000));
        assert_eq!(Rate::best(115_200, 4_000_000, 4_000_000), Some(3_000_000));
        assert_eq!(Rate::best(115_200, 1_000_000, 1_000_000), Some(921_600));
        assert_eq!(Rate::best(115_200, 200_000, 200_000), None);
        assert_eq!(Rate::best(115_200, 0, u32::MAX), None);
        assert_eq!(Rate::best(9_600, 3_000_000, 115_200), Some(57_600));
    }
}
