//! Whether what the plan runs is there: a script that is missing should not be found out in the downtime.

use super::{Table, Verdict};
use crate::migration::host::{Command, Host};
use crate::migration::plan::Action;
use crate::migration::run::End;
use crate::migration::step::StepError;
use std::path::Path;

/// Prints those of the pairs `KIND WORD` whose script or program is not there, in ROOT.
const SCRIPT: &str = r#"while [ $# -gt 0 ]; do
  case $1 in
    script) [ -f "$2" ] && [ -r "$2" ] || echo "$2" ;;
    *) command -v "$2" >/dev/null || echo "$2" ;;
  esac
  shift 2
done"#;

/// A row for each core.
pub(super) fn look(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let plan = table.run.plan;
    for end in [End::Source, End::Destination] {
        let core = table.run.core(end);
        let service = &core.service;
        let mut actions = vec![("start", &service.start), ("stop", &service.stop)];
        actions.extend(service.health.as_ref().map(|health| ("health", health)));
        actions.extend(service.ensure_permissions.as_ref().map(|script| ("ensure_permissions", script)));
        if let (End::Source, Some(proxy)) = (end, &plan.proxy) {
            actions.push(("proxy.test", &proxy.test));
            actions.extend(proxy.start.as_ref().map(|start| ("proxy.start", start)));
            actions.extend(proxy.stop.as_ref().map(|stop| ("proxy.stop", stop)));
        }
        if let (End::Destination, Some(check)) = (end, plan.proxy.as_ref().and_then(|it| it.check.as_ref())) {
            actions.push(("proxy.check", check));
        }
        let host = table.run.shared_host(end);
        of_machine(table, end.as_str(), &*host, core.root.as_path(), &actions)?;
    }
    Ok(())
}

/// One row: what is missing of a machine's commands.
pub(super) fn of_machine(
    table: &mut Table<'_, '_>,
    name: &str,
    host: &dyn Host,
    root: &Path,
    actions: &[(&str, &Action)],
) -> Result<(), StepError> {
    let pairs: Vec<&str> = actions.iter().flat_map(|(_, action)| [kind(action), action.first()]).collect();
    let ran = host.run(&Command::script(SCRIPT, &pairs).within(root))?;
    let missing: Vec<String> = actions
        .iter()
        .filter(|(_, action)| ran.lines().any(|line| line == action.first().as_bytes()))
        .map(|(key, action)| format!("{key}: there is no {} to run in {}", action.first(), root.display()))
        .collect();
    let is_good = ran.is_success() && missing.is_empty();
    let detail = match (is_good, missing.is_empty()) {
        (true, _) => "all there".to_owned(),
        (false, false) => missing.join("\n"),
        (false, true) => format!("can't work in {}: {}", root.display(), ran.ending()),
    };
    table.judge(is_good, Verdict::Fail, &format!("{name} commands"), detail);
    Ok(())
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Script(_) => "script",
        Action::Program(_) => "program",
    }
}
