//! What is in force and what the records say of it, brought together after a restart.
//!
//! The two are in files of their own, written within the same second. A program that is killed in between has an action
//! on the one side only: one that is in force under a number that its record gives to something else next, or one that
//! stays on the record for ever.

use std::collections::BTreeSet;

use dnscrub_detection::Incident;
use ipnet::IpNet;
use tracing::info;

use super::limits::LIMITS;
use super::{InForce, Response, listed, origin, scopes};

/// How an action begins that raised levels, when it was done and after a restart.
pub(super) const RAISES: [&str; 2] = ["raised", "still raises"];
/// How one begins that blocked sources, likewise.
pub(super) const BLOCKS: [&str; 2] = ["blocked", "still blocks"];
/// Why there is something new on a record.
const RESTARTED: &str = "dnscrub was started again";

/// Whether an action with such a beginning is in force under this number, as the record has it.
fn is_recorded(incident: &Incident, action: u32, beginnings: &[&str]) -> bool {
    let mut going_on = going_on(incident, beginnings);
    going_on.any(|(number, _)| number == action)
}

/// Numbers and texts of the actions with such a beginning that are not undone.
fn going_on<'a>(
    incident: &'a Incident,
    beginnings: &'a [&str],
) -> impl Iterator<Item = (u32, &'a str)> {
    let lasting = incident.actions.iter();
    let lasting = lasting.filter(|it| it.lasting && it.undone.is_none());
    lasting
        .filter(|it| {
            let mut beginnings = beginnings.iter();
            beginnings.any(|beginning| {
                let rest = it.text.strip_prefix(beginning);
                rest.is_some_and(|rest| rest.starts_with(' '))
            })
        })
        .map(|it| (it.number, it.text.as_str()))
}

impl Response {
    /// To be called once, when the records are read: what is in force and not on its record is written there; what is on
    /// a record and not in force is undone there. Waits for the disk.
    pub fn match_records(&self, now: f64) {
        let mut changed = false;
        for incident in self.shared.incidents.all() {
            let number = incident.number;
            let mut known = BTreeSet::new();
            let mut blocks = false;
            if let Some(in_force) = self.state().in_force.get_mut(&number) {
                changed |= self.record(&incident, in_force, now);
                known.extend(in_force.level.as_ref().map(|it| it.action));
                known.extend(in_force.limit.as_ref().map(|it| it.action));
                known.extend(in_force.blocks);
                blocks = in_force.blocks.is_some();
            }
            let ours = [&RAISES[..], &BLOCKS, &[LIMITS]].concat();
            for (action, text) in going_on(&incident, &ours) {
                if known.contains(&action) {
                    continue;
                }
                info!(incident = number, "no longer in force: {text}");
                let text = format!("no longer in force since {RESTARTED}: {text}");
                self.note(number, |it| it.undo(action, now, text));
            }
            if !blocks && going_on(&incident, &BLOCKS).next().is_some() {
                // nobody would renew them or take them back
                self.blocklist.unblock(&origin(number));
            }
        }
        if changed {
            // a failure is in the log
            let _ = self.save();
        }
    }

    /// Writes what is in force under a number that the record does not know into it. Whether there was any.
    fn record(&self, incident: &Incident, in_force: &mut InForce, now: f64) -> bool {
        let number = incident.number;
        let mut changed = false;
        if let Some(level) = &mut in_force.level
            && !is_recorded(incident, level.action, &RAISES)
        {
            let [_, still] = RAISES;
            let (zones, to) = (scopes(&level.raised.zones), level.raised.level.label());
            let text = format!("{still} {zones} to level {to} ({RESTARTED})");
            self.note(number, |it| {
                level.action = it.act(now, "dnscrub", text, true)
            });
            changed = true;
        }
        if let Some(action) = in_force.blocks
            && !is_recorded(incident, action, &BLOCKS)
        {
            let [_, still] = BLOCKS;
            let sources: Vec<IpNet> = in_force.sources.keys().copied().collect();
            in_force.blocks = None;
            if !sources.is_empty() {
                let text = format!("{still} {} ({RESTARTED})", listed(&sources));
                self.note(number, |it| {
                    in_force.blocks = Some(it.act(now, "dnscrub", text, true));
                });
            }
            changed = true;
        }
        // whether there is a limit again is decided anew
        let unknown = in_force
            .limit
            .take_if(|it| !is_recorded(incident, it.action, &[LIMITS]));
        changed | unknown.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dnscrub_packet_filter::EntryFilter;
    use dnscrub_scoring::Level;

    use super::*;
    use crate::control::testing::{PLAIN, Program, program};
    use crate::incidents::folder::Folder;
    use crate::incidents::owner::IncidentOwner;
    use crate::incidents::testing::incident;

    const STATE: &str = r#"{"format": "dnscrub-response", "version": 1, "state": {"in_force": {"7": {
        "level": {"action": 1, "raised": {"incident": 7, "level": "attack", "zones": ["example.com"], "names": false}},
        "blocks": 2, "sources": {"192.0.2.1/32": {"until": 4000000000, "hits": 0, "looked": 0}},
        "limit": {"action": 3, "words": "200/s"}}}}}"#;

    const START: f64 = 1_700_000_010.0;

    /// Takes up what is in the program's state folder, as at a start.
    fn start(program: &Program) -> Arc<Response> {
        let (shared, blocklist) = (&program.supervisor.shared, &program.supervisor.blocklist);
        let folder = program.folder.path();
        let response = Response::open(folder, Arc::clone(shared), Arc::clone(blocklist), START);
        let beside = Arc::clone(&response);
        drop(IncidentOwner::open(folder, Arc::clone(shared), beside, &[], START).unwrap());
        response
    }

    /// The program after a restart: incident 7 is open, with such actions on its record.
    fn restarted(state: &str, actions: &[&str]) -> (Program, Arc<Response>) {
        let program = program(PLAIN);
        let folder = program.folder.path();
        std::fs::write(folder.join(super::super::NAME), state).unwrap();
        let mut open = incident(7);
        for &action in actions {
            open.act(START - 1.0, "dnscrub", action, true);
        }
        Folder::open(folder).unwrap().0.write(&open).unwrap();
        let sources = ["192.0.2.1/32".parse().unwrap()];
        let blocklist = &program.supervisor.blocklist;
        let _ = blocklist.block_sources(&origin(7), "incident 7", &sources, None);
        let response = start(&program);
        (program, response)
    }

    /// The actions of incident 7, with an asterisk where they are undone.
    fn actions(program: &Program) -> Vec<String> {
        let incident = program.supervisor.shared.incidents.get(7).unwrap();
        let actions = incident.actions.iter().map(|it| {
            let undone = if it.undone.is_some() { "*" } else { "" };
            format!("{} {}{undone}", it.number, it.text)
        });
        actions.collect()
    }

    fn is_blocked(program: &Program) -> bool {
        let entries = program
            .supervisor
            .blocklist
            .list(&EntryFilter::default(), 0, 10)
            .0;
        !entries.is_empty()
    }

    #[test]
    fn what_both_know_stays_as_it_is() {
        let before = [
            "raised example.com to level attack",
            "blocked 192.0.2.1 for 10m",
            "limits packets in the kernel to 200/s",
        ];
        let (program, response) = restarted(STATE, &before);
        assert_eq!(
            actions(&program),
            [
                "1 raised example.com to level attack",
                "2 blocked 192.0.2.1 for 10m",
                "3 limits packets in the kernel to 200/s",
            ]
        );
        assert!(is_blocked(&program));
        assert!(response.state().in_force[&7].limit.is_some());
    }

    #[test]
    fn what_is_in_force_and_not_on_the_record_is_written_there() {
        // the numbers are those of other actions by now
        let others = ["announces route 1, x (y)", "announces route 2, x (y)"];
        let (program, response) = restarted(STATE, &others);
        assert_eq!(
            actions(&program)[2..],
            [
                "3 still raises example.com to level attack (dnscrub was started again)",
                "4 still blocks 192.0.2.1 (dnscrub was started again)",
            ]
        );
        assert!(is_blocked(&program));
        assert!(response.state().in_force[&7].limit.is_none());
        let orders = program.supervisor.shared.orders.load();
        let level = orders.effective(Some("example.com"), Level::Calm).level;
        assert_eq!(level, Level::Attack);

        // at the end that is undone, and nothing else
        let incidents = &program.supervisor.shared.incidents;
        incidents.note(7, |it| it.closed = Some(START));
        response.carry_out(response.tick(START, None), START);
        let undone = actions(&program)
            .iter()
            .map(|it| it.ends_with('*'))
            .collect::<Vec<_>>();
        assert_eq!(undone, [false, false, true, true]);
        assert!(!is_blocked(&program));
    }

    #[test]
    fn what_is_on_the_record_and_not_in_force_is_undone() {
        let before = [
            "raised example.com to level attack",
            "announces route 1, x (y)",
            "blocked 192.0.2.1 for 10m",
            "limits packets in the kernel to 200/s",
        ];
        let nothing = r#"{"format": "dnscrub-response", "version": 1, "state": {}}"#;
        let (program, _) = restarted(nothing, &before);
        assert_eq!(
            actions(&program),
            [
                "1 raised example.com to level attack*",
                "2 announces route 1, x (y)",
                "3 blocked 192.0.2.1 for 10m*",
                "4 limits packets in the kernel to 200/s*",
            ]
        );
        assert!(!is_blocked(&program), "nobody would take it back");
        let incident = program.supervisor.shared.incidents.get(7).unwrap();
        assert_eq!(
            incident.timeline.last().unwrap().text,
            "no longer in force since dnscrub was started again: limits packets in the kernel to 200/s"
        );
    }
}
