//! How this node's instances are reached: pure.

use std::net::IpAddr;
use std::str::FromStr;

use berth_model::relay::Transport;

/// What a coordinator has said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// How gateways reach instances.
    Transport(Transport),
    /// Nothing: it knows no relays.
    Nothing,
}

/// Stands for [`Told::Nothing`] in the file.
const NOTHING: &str = "nothing";

impl Told {
    /// From a welcome. What a newer coordinator says in a word unknown here is taken for the safe way.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "" => Self::Nothing,
            word => Self::Transport(word.parse().unwrap_or(Transport::Relay)),
        }
    }

    /// As it is kept on disk.
    pub(super) fn text(self) -> String {
        match self {
            Self::Nothing => NOTHING.to_owned(),
            Self::Transport(transport) => transport.to_string(),
        }
    }
}

impl FromStr for Told {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            NOTHING => Ok(Self::Nothing),
            text => text.parse().map(Self::Transport),
        }
    }
}

/// How instances that are started from now on are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// At the configured address.
    Direct,
    /// On loopback, through the relay.
    Relay,
    /// On loopback, by nobody: the coordinator knows no relays, and there is no address to dial.
    Nowhere,
}

/// What follows from what the coordinator said, from where it is, and from the configured address; and what is
/// wrong with that, if anything.
pub(super) fn decide(
    told: Option<Told>,
    same_machine: bool,
    address: IpAddr,
) -> (Mode, Option<String>) {
    let dialled = same_machine || !address.is_loopback();
    match told {
        Some(Told::Transport(Transport::Relay)) => (Mode::Relay, None),
        None | Some(Told::Transport(Transport::Auto)) if same_machine => (Mode::Direct, None),
        None | Some(Told::Transport(Transport::Auto)) => (Mode::Relay, None),
        Some(Told::Transport(Transport::Plain) | Told::Nothing) if dialled => (Mode::Direct, None),
        Some(Told::Transport(Transport::Plain)) => {
            let trouble = format!(
                "the fleet's transport is plain, and {address} is every machine's own: instances are reached \
                 through the relay all the same; set address in agent.toml to one that the gateways can dial"
            );
            (Mode::Relay, Some(trouble))
        }
        Some(Told::Nothing) => {
            let trouble = format!(
                "the coordinator knows no relays, and {address} is every machine's own, so that gateways reach \
                 nothing here: upgrade the coordinator, or set address in agent.toml"
            );
            (Mode::Nowhere, Some(trouble))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_the_rule_between_machines() {
        let (loopback, real) = ([127, 0, 0, 1].into(), [10, 0, 0, 7].into());
        let says = |word| Some(Told::of(word));
        for (told, same, address, mode, trouble) in [
            (None, false, loopback, Mode::Relay, false),
            (None, true, loopback, Mode::Direct, false),
            (says("auto"), false, loopback, Mode::Relay, false),
            (says("auto"), false, real, Mode::Relay, false),
            (says("auto"), true, loopback, Mode::Direct, false),
            (says("relay"), true, loopback, Mode::Relay, false),
            (says("plain"), true, loopback, Mode::Direct, false),
            (says("plain"), false, real, Mode::Direct, false),
            (says("plain"), false, loopback, Mode::Relay, true),
            (says(""), false, real, Mode::Direct, false),
            (says(""), true, loopback, Mode::Direct, false),
            (says(""), false, loopback, Mode::Nowhere, true),
            (says("quantum"), false, real, Mode::Relay, false),
        ] {
            let (decided, why) = decide(told, same, address);
            assert_eq!(
                (decided, why.is_some()),
                (mode, trouble),
                "{told:?} {same} {address}"
            );
        }
    }

    #[test]
    fn what_was_told_is_kept_as_text() {
        for word in ["", "auto", "relay", "plain"] {
            let told = Told::of(word);
            assert_eq!(told.text().parse(), Ok(told));
        }
        assert!("rubbish".parse::<Told>().is_err());
    }
}
