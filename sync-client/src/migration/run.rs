//! What a step works with: the plan, both machines, the journal, the operator.

use super::Operator;
use super::host::{Command, Host, Machine};
use super::journal::{Journal, State};
use super::plan::{Action, Core, Plan, RegisterHost};
use super::position::{Position, action};
use super::say::Say;
use super::service;
use super::step::StepError;
use crate::bench::asking_once;
use crate::console::with_causes;
use crate::endpoint::Environment;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// For a command of `proxy` or `register`.
const ACTION_S: u32 = 300;

/// What the operator asked for besides the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) dry_run: bool,
    /// Every question is answered.
    pub(crate) yes: bool,
    /// Files that a config follower writes are edited all the same.
    pub(crate) even_generated: bool,
}

/// Which core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

impl End {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            End::Source => "source",
            End::Destination => "destination",
        }
    }
}

/// One command under way.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) settings: Settings,
    pub(crate) operator: &'a Operator<'a>,
    /// The operator's, asking for a passphrase only once.
    pub(crate) environment: Environment,
    pub(crate) say: &'a Say,
    source: Arc<dyn Host>,
    destination: Arc<dyn Host>,
    journal: Journal,
}

impl<'a> Run<'a> {
    /// Takes the migration's lock, unless nothing is to be changed. Connects to nobody yet.
    pub(crate) fn open(
        plan: &'a Plan,
        settings: Settings,
        operator: &'a Operator<'a>,
        say: &'a Say,
    ) -> Result<Run<'a>, StepError> {
        let (dir, identity) = (plan.state_dir.as_path(), plan.identity());
        let journal = if settings.dry_run {
            Journal::only_read(dir, &identity)?
        } else {
            Journal::open(dir, &identity)?
        };
        let environment = asking_once(operator.environment);
        let source: Arc<dyn Host> = match &plan.source.ssh {
            None => Arc::new(Machine::here("source", operator.stop)),
            Some(ssh) => Arc::new(Machine::behind("source", ssh, &environment, operator.stop)?),
        };
        let destination = Arc::new(Machine::here("destination", operator.stop));
        Ok(Run { plan, settings, operator, environment, say, source, destination, journal })
    }

    pub(crate) fn host(&self, end: End) -> &dyn Host {
        match end {
            End::Source => &*self.source,
            End::Destination => &*self.destination,
        }
    }

    /// The same, to be kept while the run goes on.
    pub(crate) fn shared_host(&self, end: End) -> Arc<dyn Host> {
        Arc::clone(match end {
            End::Source => &self.source,
            End::Destination => &self.destination,
        })
    }

    /// A register host of the plan.
    pub(crate) fn register(&self, host: &RegisterHost) -> Result<Machine, StepError> {
        let (name, stop) = (host.name.as_str(), self.operator.stop);
        match &host.ssh {
            None => Ok(Machine::here(name, stop)),
            Some(ssh) => Ok(Machine::behind(name, ssh, &self.environment, stop)?),
        }
    }

    pub(crate) fn core(&self, end: End) -> &'a Core {
        match end {
            End::Source => &self.plan.source,
            End::Destination => &self.plan.destination,
        }
    }

    /// Names of the data sets.
    pub(crate) fn sets(&self) -> Vec<&'a str> {
        self.plan.data.iter().map(|set| set.name.as_str()).collect()
    }

    /// Where the migration stands now.
    pub(crate) fn position(&self) -> Position {
        Position::of(self.journal.records()).under(&self.plan.made_of())
    }

    /// Something to remember.
    pub(crate) fn record(
        &mut self,
        step: &str,
        action: &str,
        state: State,
        data: Value,
    ) -> Result<(), StepError> {
        Ok(self.journal.record(step, action, state, data)?)
    }

    /// An action that changes something: begun before, done or failed after it.
    pub(crate) fn action<T>(
        &mut self,
        step: &str,
        action: &str,
        data: Value,
        work: impl FnOnce(&mut Run<'a>) -> Result<(T, Value), StepError>,
    ) -> Result<T, StepError> {
        self.stopped()?;
        self.record(step, action, State::Begun, data)?;
        match work(self) {
            Ok((value, data)) => {
                self.record(step, action, State::Done, data)?;
                Ok(value)
            }
            Err(error) => {
                let data = json!({"error": with_causes(&error), "exit_code": error.exit_code()});
                self.record(step, action, State::Failed, data)?;
                Err(error)
            }
        }
    }

    /// A whole step.
    pub(crate) fn recorded(
        &mut self,
        step: &str,
        work: impl FnOnce(&mut Run<'a>) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        self.action(step, action::RUN, Value::Null, |run| work(run).map(|()| ((), Value::Null)))
    }

    /// Ends the run where the operator stopped it.
    pub(crate) fn stopped(&self) -> Result<(), StepError> {
        match self.operator.stop.try_recv() {
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(()),
            _ => Err(StepError::Interrupted),
        }
    }

    /// Runs a command of the plan on a machine, in `root`, and fails with its last words where it does.
    pub(crate) fn perform(
        &mut self,
        step: &str,
        what: &str,
        host: &dyn Host,
        root: &Path,
        action: &Action,
    ) -> Result<(), StepError> {
        let name = format!("{what} {}", host.name());
        self.action(step, &name, json!({"command": action.to_string()}), |run| {
            run.say.tell(
                &format!("{name}: {action}"),
                &json!({"event": "action", "step": step, "action": name, "command": action.to_string()}),
            );
            let command = Command::new(action.words()).within(root).limited(ACTION_S).awaited().outlived();
            let ran = host.run(&command)?;
            if ran.is_success() {
                return Ok(((), service::said(&ran)));
            }
            let words = service::last_words(&ran);
            Err(StepError::refused(format!(
                "{name}: `{action}` in {} {}: {words}",
                root.display(),
                ran.ending()
            )))
        })
    }

    /// Goes on only if the operator agrees.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), StepError> {
        if self.settings.yes {
            self.say.note(&format!("{question} yes (--yes)"));
            return Ok(());
        }
        match (self.operator.confirm)(question) {
            Some(true) => Ok(()),
            Some(false) => Err(StepError::refused("not agreed to; nothing more was changed")),
            None => Err(StepError::refused(format!(
                "{question} Nobody can be asked here: give --yes to agree beforehand"
            ))),
        }
    }
}
