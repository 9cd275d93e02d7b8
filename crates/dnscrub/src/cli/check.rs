//! `dnscrub check`.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::output::{Paint, Style};
use super::{Exit, json_text};
use crate::config::runtime::{self, Surroundings};
use crate::config::{Disk, Problems, Summary};
use crate::legible::visible_lines;
use crate::{state_folder, zone_loader};

/// The answer to a good configuration, as JSON.
#[derive(Serialize)]
struct Good<'a> {
    file: &'a Path,
    good: bool,
    summary: Summary,
}

pub(super) fn run(file: &Path, as_json: bool, style: Style) -> Result<String, Exit> {
    match runtime::load(file, &Disk, Surroundings::at_start()) {
        Ok(configuration) => {
            let wrong = zone_loader::check(&configuration);
            if !wrong.is_empty() {
                return refused(file, as_json, Problems::in_order(wrong));
            }
            let mut summary = Summary::of(&configuration);
            summary
                .warnings
                .extend(unwritable(&configuration.startup.state_folder));
            summary
                .warnings
                .extend(configuration.reloadable.notify.missing_programs());
            if as_json {
                return json_text(&Good {
                    file,
                    good: true,
                    summary,
                });
            }
            let good = style.paint(Paint::Good, &format!("{} is good", file.display()));
            // what the file says is shown, whatever it is
            let summary = visible_lines(summary.to_string().trim_end());
            Ok(format!("{good}\n\n{summary}\n"))
        }
        Err(problems) => refused(file, as_json, problems),
    }
}

/// A state folder that whoever checks cannot write. A folder that is not there yet is created at the start.
fn unwritable(folder: &Path) -> Option<String> {
    if !folder.exists() {
        return None;
    }
    let failure = state_folder::try_to_write(folder).err()?;
    let by = match failure.kind() {
        std::io::ErrorKind::PermissionDenied => " by who runs this check",
        _ => "",
    };
    let folder = folder.display();
    Some(format!(
        "the state folder {folder} cannot be written{by}: {failure}"
    ))
}

fn refused(file: &Path, as_json: bool, problems: Problems) -> Result<String, Exit> {
    if !as_json {
        return Err(problems.into());
    }
    let answer = json!({ "file": file, "good": false, "problems": problems });
    Err(Exit {
        code: 2,
        message: String::new(),
        printed: json_text(&answer)?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::Value;

    use super::*;
    use crate::control::testing::PLAIN;

    #[test]
    fn a_good_configuration_is_told_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        std::fs::write(&path, PLAIN).unwrap();
        let text =
            run(&path, false, Style::default()).unwrap_or_else(|exit| panic!("{}", exit.message));
        assert!(
            text.starts_with(&format!("{} is good\n\n", path.display())),
            "{text}"
        );
        assert!(
            text.contains("127.0.0.1:5301") && text.contains("no-any"),
            "{text}"
        );
        let json: Value =
            serde_json::from_str(&run(&path, true, Style::default()).unwrap()).unwrap();
        assert_eq!(json["good"], true);
        assert!(json["summary"].is_object(), "{json}");
    }

    #[test]
    fn what_a_file_says_does_nothing_to_the_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        let told = |more: &str| {
            std::fs::write(&path, format!("{PLAIN}{more}")).unwrap();
            run(&path, false, Style::default()).map_err(|exit| exit.message)
        };
        let command = r#"notify: { commands: [ { name: c, run: [ "/no/\e[31mred" ] } ] }"#;
        let good = told(command).unwrap();
        assert_eq!(good.matches(r"/no/\u{1b}[31mred").count(), 2, "{good}");
        let wrong = told("\"a\\x9b31mred\": 1\n").unwrap_err();
        assert!(wrong.contains(r"a\u{9b}31mred"), "{wrong}");
        for text in [good, wrong] {
            assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text}");
        }
    }

    #[test]
    fn a_state_folder_that_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        let state = folder.path().join("state");
        let yaml = format!("{PLAIN}state: {{ folder: \"{}\" }}\n", state.display());
        std::fs::write(&path, yaml).unwrap();
        let text = |path| run(path, false, Style::default()).unwrap();
        assert!(!text(&path).contains("cannot be written"));
        std::fs::write(&state, "in the way").unwrap();
        let text = text(&path);
        assert!(
            text.contains(&format!(
                "the state folder {} cannot be written",
                state.display()
            )),
            "{text}"
        );
    }

    #[test]
    fn a_program_that_cannot_be_run_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        let program = folder.path().join("page");
        let command = format!(
            "commands: [ {{ name: page, run: [ {} ] }} ]",
            program.display()
        );
        std::fs::write(&path, format!("{PLAIN}notify: {{ {command} }}\n")).unwrap();
        let text = || run(&path, false, Style::default()).unwrap();
        assert!(
            text().contains("the command `page` cannot run") && text().contains("No such file")
        );
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        assert!(text().contains("nobody may execute it"), "{}", text());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!text().contains("cannot run"), "{}", text());
    }

    #[test]
    fn zone_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        let zone = "zones: [ { name: example.com, names: { file: zone.db } } ]\n";
        std::fs::write(&path, format!("{PLAIN}{zone}")).unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("zone.db"), text).unwrap();
        write("@ 60 SOA ns h 1 2 3 4 5\nwww 60 A 192.0.2.1\n");
        let text = run(&path, false, Style::default()).unwrap();
        assert!(
            text.contains("example.com: names from the file zone.db"),
            "{text}"
        );
        write("@ 60 SOA ns h 1 2 3 4 5\nwww 60 NONSENSE 192.0.2.1\n");
        let exit = run(&path, false, Style::default()).unwrap_err();
        assert_eq!(exit.code, 2);
        for part in [
            "\"NONSENSE\" is no record type",
            "zone.db:2:8",
            "www 60 NONSENSE",
            "^^^^^^^^",
        ] {
            assert!(exit.message.contains(part), "{part}: {}", exit.message);
        }
        write("www 60 A 192.0.2.1\n");
        let exit = run(&path, false, Style::default()).unwrap_err();
        assert!(exit.message.contains("no SOA record"), "{}", exit.message);
    }

    #[test]
    fn a_bad_one_with_its_problems() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        std::fs::write(&path, PLAIN.replace("listen:", "lissten:")).unwrap();
        let exit = run(&path, false, Style::default()).unwrap_err();
        assert_eq!(exit.code, 2);
        assert!(
            exit.message.contains("lissten") && exit.message.contains("dnscrub.yaml:2:1"),
            "{}",
            exit.message
        );
        let exit = run(&path, true, Style::default()).unwrap_err();
        let json: Value = serde_json::from_str(&exit.printed).unwrap();
        assert_eq!(
            (exit.code, &json["good"], &json["problems"][0]["line"]),
            (2, &json!(false), &json!(2))
        );
    }
}
