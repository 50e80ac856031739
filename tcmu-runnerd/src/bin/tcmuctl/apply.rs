//! `tcmuctl apply`: disks as their files say. Shows first what it would do.
use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::bail;
use clap::Args;
use serde_json::json;
use tcmu_runnerd::output::Out;

use super::disk::{
    Machine, file, find,
    plan::{self, Allow, Change, Plan},
    records,
    size::Size,
    spec::DiskSpec,
    steps,
};

/// What is applied, and how far it may go.
#[derive(Args)]
pub(crate) struct Apply {
    /// A directory with a file for each disk, or one such file.
    #[arg(default_value = file::DIRECTORY)]
    path: PathBuf,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Don't ask.
    #[arg(long, short)]
    yes: bool,
    /// What may be done though something may be lost: shrink, recreate, detach, remove.
    #[arg(long, value_enum, value_delimiter = ',')]
    allow: Vec<Allow>,
    /// Don't ask the daemon whether config strings are right.
    #[arg(long)]
    no_check: bool,
}

/// A disk, and what has to be done for it.
struct Disk {
    spec: DiskSpec,
    plan: Plan,
    /// Where it is described.
    file: PathBuf,
}

impl Disk {
    /// What is done, and what is not allowed.
    fn split(&self, allow: &[Allow]) -> (Vec<Change>, Vec<Change>) {
        let allowed = |change: &&Change| change.needs().is_none_or(|needs| allow.contains(&needs));
        let (done, refused): (Vec<&Change>, Vec<&Change>) = self.plan.changes.iter().partition(allowed);
        (done.into_iter().cloned().collect(), refused.into_iter().cloned().collect())
    }

    fn line(&self, change: &Change) -> String {
        format!("{} {}: {}", change.sign(), self.spec.name, plan::line(&self.spec, change))
    }
}

/// What is wanted, compared with what is there; and what is wrong with single files.
fn compare(machine: &Machine, apply: &Apply) -> anyhow::Result<(Vec<Disk>, Vec<String>)> {
    let files = file::files(&apply.path)?;
    let (mut disks, mut problems): (Vec<Disk>, Vec<String>) = (Vec::new(), Vec::new());
    for path in &files {
        let planned = file::load(path).and_then(|spec| {
            if let Some(other) = disks.iter().find(|disk| disk.spec.name == spec.name && disk.spec.hba == spec.hba) {
                bail!("{}: {} describes the disk {} already", path.display(), other.file.display(), spec.name);
            }
            let plan = plan::plan(machine, &spec).map_err(|error| anyhow::anyhow!("{}: {error:#}", path.display()))?;
            let is_new = plan.changes.iter().any(|change| matches!(change, Change::Create | Change::Recreate(_)));
            if is_new && !apply.no_check {
                (machine.check)(&spec.handler, &spec.config).map_err(|error| anyhow::anyhow!("{}: {error:#}", path.display()))?;
            }
            Ok(Disk { spec, plan, file: path.clone() })
        });
        match planned {
            Ok(disk) => disks.push(disk),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    if apply.path.is_dir() {
        disks.extend(gone(machine, &apply.path, &files)?);
    }
    Ok((disks, problems))
}

/// Disks that came from files of this directory which are not there any more.
fn gone(machine: &Machine, dir: &Path, files: &[PathBuf]) -> anyhow::Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for name in records::orphans(machine, dir, files) {
        match find::find(machine, &name, None)? {
            Some(live) => disks.push(Disk {
                spec: DiskSpec::new("", &name, Size(1)),
                plan: Plan { live: Some(live.id().clone()), changes: vec![Change::Remove] },
                file: dir.to_owned(),
            }),
            None => records::forget(machine, &name),
        }
    }
    Ok(disks)
}

/// Brings one disk to what is wanted.
fn bring(machine: &Machine, disk: &Disk, changes: &[Change]) -> anyhow::Result<()> {
    let live = match &disk.plan.live {
        Some(id) => Some(find::disk(machine, &id.to_string())?),
        None => None,
    };
    match (changes.first(), live) {
        (Some(Change::Remove), Some(live)) => return steps::delete(machine, &live, false),
        (Some(Change::Create), None) => drop(steps::create(machine, &disk.spec)?),
        (Some(Change::Recreate(_)), Some(live)) => {
            steps::delete(machine, &live, false)?;
            steps::create(machine, &disk.spec)?;
        }
        (_, Some(live)) => steps::carry_out(machine, &live, &disk.spec, changes)?,
        (_, None) => {}
    }
    records::note(machine, &disk.spec.name, &disk.file);
    Ok(())
}

/// Shows what is to be done, asks, and does it. What can't be done for one disk keeps no other from being done.
pub(crate) fn apply(apply: &Apply, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    let outcome = apply_on(&machine, apply, json, &mut Out, || ask(json))?;
    anyhow::ensure!(outcome, "not everything is as the files say, see above");
    Ok(())
}

/// Whether all is as it should be in the end.
fn apply_on(
    machine: &Machine,
    apply: &Apply,
    json: bool,
    out: &mut dyn Write,
    ask: impl FnOnce() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let (disks, mut problems) = compare(machine, apply)?;
    let mut lines = Vec::new();
    let mut refusals = Vec::new();
    let mut work = Vec::new();
    for disk in &disks {
        let (done, refused) = disk.split(&apply.allow);
        lines.extend(done.iter().map(|change| disk.line(change)));
        for change in refused {
            // Exports that others made do no harm; everything else is not as the file says.
            let harmless = matches!(change, Change::Detach(_));
            let needs = change.needs().map(|needs| needs.to_string()).unwrap_or_default();
            refusals.push((format!("{}   (not done without --allow {needs})", disk.line(&change)), harmless));
        }
        work.push((disk, done));
    }
    if !json {
        problems.iter().for_each(|problem| errln!("tcmuctl: {problem}"));
        for line in lines.iter().chain(refusals.iter().map(|(line, _)| line)) {
            writeln!(out, "{line}")?;
        }
        if lines.is_empty() {
            writeln!(out, "Nothing to change.")?;
        }
    }
    let act = !apply.dry_run && (lines.is_empty() || apply.yes || ask()?);
    let shown = problems.len();
    if act {
        for (disk, changes) in &work {
            // One that was refused altogether is not ours to note.
            if changes.is_empty() && !disk.plan.changes.is_empty() {
                continue;
            }
            if let Err(error) = bring(machine, disk, changes) {
                problems.push(format!("{}: {error:#}", disk.file.display()));
            }
        }
    }
    if json {
        let refused: Vec<&String> = refusals.iter().map(|(line, _)| line).collect();
        let report = json!({ "changes": lines, "refused": refused, "applied": act, "problems": problems });
        writeln!(out, "{report:#}")?;
    } else {
        problems[shown..].iter().for_each(|problem| errln!("tcmuctl: {problem}"));
    }
    Ok(problems.is_empty() && (apply.dry_run || (act && refusals.iter().all(|(_, harmless)| *harmless))))
}

/// Asks who sits at the terminal.
fn ask(json: bool) -> anyhow::Result<bool> {
    if json || !io::stdin().is_terminal() {
        super::usage("nobody can be asked here: say --yes to do it, or --dry-run to look only");
    }
    out!("Do it? [y/N] ");
    Out.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests;
