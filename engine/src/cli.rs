//! The command line: what was asked for, and the answers that need no engine.
//!
//! Never starts anything: [`Command::Run`] is the caller's to carry out.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Source, problem::Problem};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run until a signal ends it. Sources are never empty.
    Run { sources: Vec<Source>, sets: Vec<String> },
    /// See [`validate`].
    Validate { sources: Vec<Source>, sets: Vec<String> },
    /// See [`print_config`].
    PrintConfig { sources: Vec<Source>, sets: Vec<String> },
    /// See [`components`].
    Components,
}

/// Reads the process's arguments. `--help`, `--version` and mistakes end the process here.
pub fn parse() -> Command {
    Arguments::parse().command()
}

/// Checks a configuration: problems and warnings on standard error. Exit 0 if it can run.
pub fn validate(sources: &[Source], sets: &[String]) -> ExitCode {
    match config::load(sources, sets) {
        Ok(loaded) => {
            report(&loaded.warnings);
            let (pipelines, listeners) = (loaded.plan.pipelines.len(), loaded.plan.listeners.len());
            answer(&format!("valid: {pipelines} pipelines behind {listeners} listeners\n"))
        }
        Err(problems) => refuse(&problems),
    }
}

/// Prints the merged and expanded YAML on standard output, secrets masked.
pub fn print_config(sources: &[Source], sets: &[String]) -> ExitCode {
    match config::load(sources, sets) {
        Ok(loaded) => {
            report(&loaded.warnings);
            answer(&loaded.printable)
        }
        Err(problems) => refuse(&problems),
    }
}

/// Lists the component types that a configuration may name, as YAML.
pub fn components() -> ExitCode {
    let mut text = format!("version: {}\n", env!("CARGO_PKG_VERSION"));
    for (class, kinds) in config::component_kinds() {
        text.push_str(&format!("{class}:\n"));
        kinds.iter().for_each(|kind| text.push_str(&format!("  - {kind}\n")));
    }
    answer(&text)
}

const ABOUT: &str = "forebay takes OTLP in front of a fleet of OpenTelemetry Collectors: it checks \
every byte, batches, and hands on, and loses nothing that it acknowledged.";

const EXAMPLES: &str = "Examples:
  forebay                                  OTLP in on localhost:4317 and :4318, shown on stderr
  forebay --config forebay.yaml            run a configuration in the Collector's shape
  forebay --config base.yaml --config site.yaml
                                           maps merge, later wins
  forebay --config base.yaml --set exporters.otlp_grpc.endpoint=http://collector:4317
  forebay validate --config forebay.yaml   say everything that is wrong with it, and where
  forebay print-config --config base.yaml --config site.yaml
                                           the result of merging, with secrets masked

In files, ${env:NAME} and ${env:NAME:-default} stand for environment variables, $$ for a dollar.
SIGTERM drains and ends; a second one ends at once. Keys: docs/configuration.md.";

#[derive(Parser)]
#[command(name = "forebay", version, about = ABOUT, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Args)]
struct Sources {
    /// Configuration file, or file:PATH, env:NAME, yaml:TEXT; may be repeated
    #[arg(long, value_name = "FILE", global = true, value_parser = Source::parse)]
    config: Vec<Source>,
    /// Set one key over all files: --set processors.batch.timeout=1s; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// Run (the default)
    Run,
    /// Check the configuration and exit: 0 if it can run
    Validate,
    /// Print the merged configuration, secrets masked
    PrintConfig,
    /// List the supported component types
    Components,
}

impl Arguments {
    fn command(self) -> Command {
        let sets = self.sources.set;
        let sources = match self.sources.config {
            sources if sources.is_empty() => vec![config::embedded()],
            sources => sources,
        };
        match self.verb.unwrap_or(Verb::Run) {
            Verb::Run => Command::Run { sources, sets },
            Verb::Validate => Command::Validate { sources, sets },
            Verb::PrintConfig => Command::PrintConfig { sources, sets },
            Verb::Components => Command::Components,
        }
    }
}

/// Says on standard error why a configuration can't be used. Exit 1.
pub fn refuse(problems: &[Problem]) -> ExitCode {
    report(problems);
    eprintln!("{} in the configuration", count(problems.len(), "error"));
    ExitCode::FAILURE
}

fn report(problems: &[Problem]) {
    problems.iter().for_each(|problem| eprintln!("{problem}"));
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A reader that has gone away, as in `forebay components | head -1`, is no failure.
fn answer(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(arguments: &[&str]) -> Command {
        let all = ["forebay"].iter().chain(arguments);
        Arguments::try_parse_from(all).expect("these are proper arguments").command()
    }

    #[test]
    fn without_arguments_it_runs_on_the_embedded_default() {
        let (sources, sets) = (vec![config::embedded()], Vec::new());
        assert_eq!(parsed(&[]), Command::Run { sources, sets });
    }

    #[test]
    fn configs_and_sets_keep_their_order_before_or_after_the_verb() {
        let sources = vec![Source::File("a.yaml".into()), Source::Environment("B".into())];
        let sets = vec!["x.y=1".to_owned()];
        let expected = Command::Validate { sources, sets };
        let options = ["--config", "a.yaml", "--config=env:B", "--set", "x.y=1"];
        assert_eq!(parsed(&[&["validate"], &options[..]].concat()), expected);
        assert_eq!(parsed(&[&options[..], &["validate"]].concat()), expected);
    }

    #[test]
    fn a_config_over_http_is_refused_with_its_reason() {
        let arguments = ["forebay", "--config", "http://x/y"];
        let refused = Arguments::try_parse_from(arguments).map(|_| ()).expect_err("no http");
        assert!(refused.to_string().contains("fetch it first"), "{refused}");
    }

    #[test]
    fn the_help_teaches_within_a_screen() {
        <Arguments as CommandFactory>::command().debug_assert();
        let help = <Arguments as CommandFactory>::command().render_long_help().to_string();
        assert!(help.contains("forebay validate"), "{help}");
        assert!(help.lines().count() <= 50, "{help}");
    }
}
