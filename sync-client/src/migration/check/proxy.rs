//! The plan's `[proxy]`: whether the edit can be made, and whether there is a way to start NGINX and to see who answers.

use super::{Table, Verdict, is_interrupted};
use crate::console::with_causes;
use crate::migration::files::Files;
use crate::migration::host::Command;
use crate::migration::plan;
use crate::migration::proxy;
use crate::migration::run::End;
use crate::migration::step::StepError;
use crate::nginx::Edited;
use crate::place::shown;

/// Rows for the file, the start and the check.
pub(super) fn look(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let Some(proxy) = &table.run.plan.proxy else { return Ok(()) };
    file(table, proxy)?;
    if proxy.start.is_none() {
        table.row(
            Verdict::Warn,
            "proxy start",
            "no proxy.start in the plan: NGINX has to be started by hand, and it alone; run-core would start mongod and core on \
             old data as well",
        );
    }
    check(table, proxy)
}

/// The edit, made in memory.
fn file(table: &mut Table<'_, '_>, proxy: &plan::Proxy) -> Result<(), StepError> {
    let host = table.run.shared_host(End::Source);
    let files = Files::of(&*host);
    let (verdict, detail) = match proxy::look(table.run, proxy, &files) {
        Ok((original, edited, target)) => {
            let moved = said(&edited);
            (Verdict::Pass, format!("{}: {moved} to {}", shown(original.path()), target.address.as_str()))
        }
        Err(error) if is_interrupted(&error) => return Err(error),
        Err(error) => (Verdict::Fail, with_causes(&error)),
    };
    table.row(verdict, "proxy file", detail);
    Ok(())
}

fn said(edited: &Edited) -> String {
    let names: Vec<&str> = edited.moved.iter().map(|moved| moved.name.as_str()).collect();
    let mut text = format!("{} would go with {} proxy_pass", names.join(", "), edited.passes.len());
    for left in &edited.left {
        text.push_str(&format!("\nleft: line {}: {}: {}", left.line, left.what, left.why));
    }
    if edited.left.is_empty() { text } else { text + "\nall others" }
}

/// Who answers has to be seen, and a certificate that NGINX verifies has to hold.
fn check(table: &mut Table<'_, '_>, proxy: &plan::Proxy) -> Result<(), StepError> {
    let run = table.run;
    if proxy.check.is_none() {
        let curl = run.host(End::Destination).run(&Command::script("command -v curl", [""]))?;
        let (is_good, detail) = match curl.is_success() {
            true => (true, "by curl, for certificate.name"),
            false => (false, "install curl here, or give proxy.check: it shows who answers"),
        };
        table.judge(is_good, Verdict::Fail, "proxy check", detail);
    }
    if proxy.verify && run.plan.certificate.is_none() {
        table.row(
            Verdict::Warn,
            "proxy certificate",
            "NGINX will verify the destination's certificate, and nobody looks at it now: name it in [certificate]",
        );
    }
    Ok(())
}
