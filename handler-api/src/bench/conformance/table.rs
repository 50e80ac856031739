//! What a handler says of itself, and how it judges config strings.
use super::{Checked, Run, Verdict, fail, not_applicable};
use crate::{
    bench::device::control,
    host::{Plugin, is_subtype},
    plugin::Refusal,
};

pub(super) fn checks(run: &mut Run) {
    let plugin = run.plugin;
    run.check("table", "the subtype is 1 to 64 of A-Z a-z 0-9 _", |_| {
        if is_subtype(plugin.subtype()) { Ok(()) } else { Err(fail("such a subtype", format!("{:?}", plugin.subtype()))) }
    });
    for (field, text) in [("name", plugin.name()), ("version", plugin.version()), ("config_desc", plugin.config_desc())] {
        run.check("table", format!("{field} says something, without control characters"), |_| words(text));
    }
    run.check("config", "the given config string is accepted", |run| match judge(run, &run.config)? {
        Ok(()) => Ok(()),
        Err(refusal) => Err(fail("success", refusal.to_string())),
    });
    run.check("config", "a wrong config string is refused with one line that says why", |run| {
        if run.plugin.table().check_config.is_none() {
            return Err(not_applicable("the handler has no `check_config`"));
        }
        let mut refused = 0;
        for config in wrong_configs(run) {
            if let Err(refusal) = judge(run, &config)? {
                refused += 1;
                good_refusal(&config, &refusal)?;
            }
        }
        if let Some(config) = run.options.bad_config.clone()
            && judge(run, &config)?.is_ok()
        {
            return Err(fail(format!("{config:?} to be refused"), "it was accepted"));
        }
        if refused == 0 { Err(not_applicable("the handler accepts any config string")) } else { Ok(()) }
    });
}

fn words(text: &str) -> Checked {
    if text.trim().is_empty() {
        Err(fail("a text for people", "an empty string"))
    } else if text.chars().any(|c| c.is_control() && c != '\n') {
        Err(fail("a text without control characters", format!("{text:?}")))
    } else {
        Ok(())
    }
}

/// Config strings that hardly any handler takes.
pub(super) fn wrong_configs(run: &Run) -> Vec<String> {
    let mut configs = vec![
        String::new(),
        "\u{1}\u{7f}?=;;&&//\\".to_owned(),
        "/dev/null/there/is/nothing".to_owned(),
        "%s%n%s%n".to_owned(),
        "\u{fffd}\u{1f4be}".to_owned(),
        "x".repeat(4000),
    ];
    configs.extend(run.options.bad_config.clone());
    configs.retain(|c| *c != run.config);
    configs
}

/// What `check_config` says.
pub(super) fn judge(run: &Run, config: &str) -> Result<Result<(), Refusal>, Verdict> {
    let (plugin, config): (Plugin, String) = (run.plugin, config.to_owned());
    Ok(control("check_config", run.options.timeout, move || plugin.check_config(&config))?)
}

/// A refusal is a known errno and one line of text, and no panic.
pub(super) fn good_refusal(config: &str, refusal: &Refusal) -> Checked {
    let shown: String = config.chars().take(40).collect();
    let message = refusal.message();
    let fault = if refusal.errno() == libc::ENOTRECOVERABLE {
        "a panic"
    } else if !(1..=133).contains(&refusal.errno()) {
        "no errno of Linux"
    } else if message.trim().is_empty() || message.starts_with("the handler refused: ") {
        "no text"
    } else if message.lines().count() > 1 {
        "more than one line"
    } else {
        return Ok(());
    };
    Err(fail(
        format!("one line of text and a fitting errno for the config string {shown:?}"),
        format!("{fault}: {message:?}, errno {}", refusal.errno()),
    ))
}
