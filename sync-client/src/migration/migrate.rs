//! `migrate`: every step that is not done yet, in order.

use super::run::Run;
use super::step::{self, StepError};

pub(crate) fn migrate(run: &mut Run<'_>) -> Result<(), StepError> {
    for step in step::all() {
        run.stopped()?;
        if step.is_done(&run.position()) {
            run.say.note(&format!("== {}: done", step.name()));
            continue;
        }
        run.say.note(&format!("== {}", step.name()));
        step.run(run)?;
    }
    Ok(())
}
