//! Why a query is judged as it is.

use std::fmt;

use serde::Serialize;

use crate::bands::{Pressure, Weighed};
use crate::context::Transport;
use crate::defence::Level;
use crate::judgement::{Action, Cause, Judgement};
use crate::memory::{Acquaintance, NameStanding, Sighting};
use crate::policy::Policy;
use crate::recorder::Recorder;
use crate::scorer::Case;

/// What would happen to a query, and why, step by step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub question: String,
    /// By whom.
    pub source: String,
    /// How.
    pub transport: Transport,
    /// What is known of the source and the name.
    pub known: Known,
    /// Every signal in order.
    pub signals: Vec<SignalStep>,
    /// Every rule that matched, up to the one that decided.
    pub rules: Vec<RuleStep>,
    /// Every band, with its threshold at this pressure.
    pub bands: Vec<BandStep>,
    /// The pressure that counts, 0 to 1: the one that was assumed, or a higher one because of the level.
    pub pressure: f32,
    /// Everything is in observe mode.
    pub observe: bool,
    /// The judgement.
    pub judgement: Judgement,
    /// What decided, in words.
    pub because: String,
}

/// What is known of a query's source and name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Known {
    /// The source: `known`, `recent` for one that asked first a few seconds ago, or `new`.
    pub source: &'static str,
    /// It proved its address, now or lately.
    pub verified: bool,
    /// The name: `exists`, `wildcard`, `missing`, `failed before` or `unknown`.
    pub name: &'static str,
    /// The level that counts: of the name's zone or of the whole, by what is seen or ordered.
    pub level: Level,
}

impl Known {
    const fn of(sighting: &Sighting) -> Self {
        Self {
            source: match sighting.acquaintance {
                Acquaintance::Known => "known",
                Acquaintance::Recent => "recent",
                Acquaintance::New => "new",
            },
            verified: sighting.verified,
            name: match sighting.name {
                NameStanding::Exists => "exists",
                NameStanding::Covered => "wildcard",
                NameStanding::Missing { .. } => "missing",
                NameStanding::FailedBefore => "failed before",
                NameStanding::Unknown => "unknown",
            },
            level: sighting.stance,
        }
    }
}

/// In words.
impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verified = if self.verified { ", verified" } else { "" };
        let Self {
            source,
            name,
            level,
            ..
        } = self;
        write!(
            f,
            "source {source}{verified}; name {name}; level {}",
            level.label()
        )
    }
}

/// What a signal said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignalStep {
    /// Its name.
    pub signal: &'static str,
    /// The points it gave.
    pub points: i32,
    /// It is in observe mode: the points only count for what would have happened.
    pub observe: bool,
    /// Reasons in words; none for no points.
    pub why: Vec<String>,
}

/// What a matching rule did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleStep {
    /// Its number, from 0.
    pub rule: u16,
    /// Its name.
    pub name: String,
    /// The rule, or everything, is in observe mode: it only counts for what would have happened.
    pub observe: bool,
    /// Points it gave.
    pub points: i32,
    /// For a rate limit: whether this query exceeds it.
    pub over_limit: Option<bool>,
    /// What it decided.
    pub action: Option<Action>,
    /// It does not count yet: it waits for this level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Level>,
}

/// A band.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BandStep {
    /// What it does.
    pub action: Action,
    /// The points that reach it at this pressure.
    pub threshold: i32,
    /// This query's points reach it, or what is certain of them does as if the pressure were full.
    pub reached: bool,
    /// It is in observe mode.
    pub observe: bool,
}

/// The recorder of an explanation.
#[derive(Default)]
pub(crate) struct Notes {
    known: Known,
    why: Vec<String>,
    signals: Vec<SignalStep>,
    rules: Vec<RuleStep>,
    weighed: Option<Weighed>,
}

impl Recorder for Notes {
    const COMMIT: bool = false;

    fn sighting(&mut self, sighting: &Sighting) {
        self.known = Known::of(sighting);
    }

    fn say(&mut self, why: impl FnOnce() -> String) {
        self.why.push(why());
    }

    fn signal(&mut self, name: &'static str, points: i32, observed: bool) {
        self.signals.push(SignalStep {
            signal: name,
            points,
            observe: observed,
            why: std::mem::take(&mut self.why),
        });
    }

    fn rule(
        &mut self,
        rule: u16,
        observed: bool,
        over_limit: Option<bool>,
        act: Option<(Action, Cause)>,
    ) {
        let action = act.map(|(action, _)| action);
        self.rules.push(RuleStep {
            rule,
            name: String::new(),
            observe: observed,
            points: 0,
            over_limit,
            action,
            waits_for: None,
        });
    }

    fn weighed(&mut self, weighed: Weighed) {
        self.weighed = Some(weighed);
    }

    fn waiting_rule(&mut self, rule: u16, level: Level) {
        self.rules.push(RuleStep {
            rule,
            name: String::new(),
            observe: false,
            points: 0,
            over_limit: None,
            action: None,
            waits_for: Some(level),
        });
    }
}

impl Notes {
    pub(crate) fn finish(self, case: Case<'_>, judgement: Judgement) -> Explanation {
        let Case {
            policy,
            query,
            context,
            ..
        } = case;
        let weighed = self.weighed.unwrap_or(Weighed {
            pressure: Pressure::new(case.pressure),
            counted: 0,
            certain: 0,
        });
        let mut rules = self.rules;
        for step in &mut rules {
            if let Some(rule) = policy.rules.rules.get(usize::from(step.rule)) {
                step.name.clone_from(&rule.name);
                if step.waits_for.is_none() {
                    step.points = rule.effect.score;
                }
            }
        }
        let qtype = crate::config::QueryType(query.qtype);
        let qclass = crate::config::QueryClass(query.qclass);
        let bands = policy.bands.iter().map(|band| BandStep {
            action: band.action,
            threshold: band.threshold(weighed.pressure),
            reached: weighed.reach(band).is_some(),
            observe: band.observe,
        });
        let because = because(policy, &judgement, weighed);
        Explanation {
            question: format!("{} {qclass} {qtype}", query.qname),
            source: context.source.to_canonical().to_string(),
            transport: context.transport,
            known: self.known,
            signals: self.signals,
            rules,
            bands: bands.collect(),
            pressure: weighed.pressure.fraction(),
            observe: policy.observe,
            judgement,
            because,
        }
    }
}

fn because(policy: &Policy, judgement: &Judgement, weighed: Weighed) -> String {
    let points = judgement.points;
    let name = |rule: u16| policy.rule_name(rule).unwrap_or_default().to_owned();
    match judgement.cause {
        Cause::None => format!("no rule decides, and {points} points reach no band"),
        Cause::Rule(rule) => format!("rule {} decides", name(rule)),
        Cause::RateLimit(rule) => format!("the rate of rule {} is exceeded", name(rule)),
        Cause::Allow(rule) => format!("rule {} lets it pass", name(rule)),
        Cause::Level => {
            "at this level such sources prove their address first (`response`)".to_owned()
        }
        Cause::Missing => {
            format!("{points} points reach a band, and its zone does not have the name")
        }
        Cause::Band(band) => {
            let band = policy.bands.iter().nth(usize::from(band));
            let reach = band.and_then(|band| weighed.reach(band));
            let (points, threshold) = reach.unwrap_or_default();
            format!("{points} points reach the band from {threshold}")
        }
    }
}

/// For people; one line a step.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        };
        writeln!(f, "{} from {} over {transport}", self.question, self.source)?;
        let observed = |observe: bool| if observe { " (observed)" } else { "" };
        writeln!(f, "{}", self.known)?;
        writeln!(f, "signals")?;
        for step in &self.signals {
            writeln!(
                f,
                "  {:<18} {:>4}{}",
                step.signal,
                step.points,
                observed(step.observe)
            )?;
            for why in &step.why {
                writeln!(f, "                          {why}")?;
            }
        }
        writeln!(f, "rules")?;
        if self.rules.is_empty() {
            writeln!(f, "  none matches")?;
        }
        for step in &self.rules {
            write!(f, "  {}", step.name)?;
            if let Some(level) = step.waits_for {
                write!(f, " waits for level {}", level.label())?;
            }
            if step.points != 0 {
                write!(f, " {:+} points", step.points)?;
            }
            match step.over_limit {
                Some(true) => write!(f, ", over its rate")?,
                Some(false) => write!(f, ", within its rate")?,
                None => {}
            }
            if let Some(action) = step.action {
                write!(f, " -> {}", action.label())?;
            }
            writeln!(f, "{}", observed(step.observe))?;
        }
        writeln!(f, "bands at pressure {:.2}", self.pressure)?;
        for step in &self.bands {
            let reached = if step.reached {
                "reached"
            } else {
                "not reached"
            };
            writeln!(
                f,
                "  {:<9} from {:>4}  {reached}{}",
                step.action.label(),
                step.threshold,
                observed(step.observe)
            )?;
        }
        writeln!(
            f,
            "{} ({} points): {}",
            self.judgement.action.label(),
            self.judgement.points,
            self.because
        )?;
        if let Some((action, cause)) = self.judgement.would {
            writeln!(
                f,
                "held back by observe mode: {} ({})",
                action.label(),
                cause.label()
            )?;
        }
        Ok(())
    }
}
