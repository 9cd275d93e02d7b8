//! `dnscrub incidents export`.

use std::path::Path;

use axum::http::Method;
use dnscrub_detection::Incident;

use super::arguments::{Export, ExportFormat};
use super::{Asker, Exit, json_text};
use crate::postmortem::{account, html, markdown};

/// Writes an incident down.
pub(super) fn export(options: &Export) -> Result<String, Exit> {
    let incident = match (&options.file, options.number) {
        (Some(file), _) => read(file)?,
        (None, number) => {
            let path = format!("/v1/incidents/{}", number.unwrap_or_default());
            Asker::of(&options.socket).json(Method::GET, &path, Vec::new())?
        }
    };
    let text = match options.format {
        ExportFormat::Markdown => markdown::text(&account::of(&incident)),
        ExportFormat::Html => html::page(&account::of(&incident)),
        ExportFormat::Json => json_text(&incident)?,
    };
    let Some(output) = &options.output else {
        return Ok(text);
    };
    std::fs::write(output, text)
        .map_err(|failure| Exit::failed(format!("cannot write {}: {failure}", output.display())))?;
    Ok(format!(
        "incident {} is in {}\n",
        incident.number,
        output.display()
    ))
}

/// What is exported, or the file of the state folder, which has it as its `incident`.
fn read(file: &Path) -> Result<Incident, Exit> {
    let text = std::fs::read(file)
        .map_err(|failure| Exit::failed(format!("cannot read {}: {failure}", file.display())))?;
    let read = serde_json::from_slice(&text).and_then(|mut found: serde_json::Value| {
        let inside = found.get_mut("incident").map(serde_json::Value::take);
        serde_json::from_value(inside.unwrap_or(found))
    });
    read.map_err(|failure| {
        Exit::failed(format!(
            "{}: found what is no incident, expected one as `dnscrub incidents export NUMBER --format json` writes it, or \
             a file of `incidents/` in the state folder: {failure}",
            file.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use dnscrub_testkit::incident::flood;

    use super::*;

    #[test]
    fn a_record_in_a_file_is_written_down_in_every_way() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("incident.json");
        let incident = flood(7, 1_795_649_504.0, Some(30));
        std::fs::write(&file, json_text(&incident).unwrap()).unwrap();
        let options = |format| Export {
            number: None,
            format,
            output: None,
            file: Some(file.clone()),
            socket: folder.path().join("nowhere"),
        };
        let written = export(&options(ExportFormat::Markdown)).unwrap();
        assert!(
            written.starts_with("# Incident 7: random-subdomain flood"),
            "{written}"
        );
        let written = export(&options(ExportFormat::Html)).unwrap();
        assert!(written.starts_with("<!DOCTYPE html>"), "{written}");
        let written = export(&options(ExportFormat::Json)).unwrap();
        assert_eq!(
            serde_json::from_str::<Incident>(&written).unwrap(),
            incident
        );

        // as it is in the state folder, which people back up
        let kept =
            serde_json::json!({ "format": "dnscrub-incident", "version": 1, "incident": incident });
        std::fs::write(&file, kept.to_string()).unwrap();
        let written = export(&options(ExportFormat::Json)).unwrap();
        assert_eq!(
            serde_json::from_str::<Incident>(&written).unwrap(),
            incident
        );

        let output = folder.path().join("report.html");
        let said = export(&Export {
            output: Some(output.clone()),
            ..options(ExportFormat::Html)
        });
        assert!(said.unwrap().starts_with("incident 7 is in "));
        assert!(
            std::fs::read_to_string(&output)
                .unwrap()
                .contains("</html>")
        );
        let nowhere = export(&Export {
            output: Some(file.join("x")),
            ..options(ExportFormat::Html)
        });
        assert!(nowhere.unwrap_err().message.starts_with("cannot write "));
        std::fs::write(&file, "{}").unwrap();
        let wrong = export(&options(ExportFormat::Json)).unwrap_err();
        assert!(
            wrong.code == 1 && wrong.message.contains("found what is no incident"),
            "{wrong:?}"
        );
    }
}
