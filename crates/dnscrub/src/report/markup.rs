//! What pages that stand on their own are made of: no script, nothing to fetch, light or dark as the
//! reader's system is.

/// A page's beginning, up to its content, with further style rules.
pub(crate) fn head(title: &str, style: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{}</title>\n<style>\n{}{style}</style>\n</head>\n<body>\n<main>\n",
        escape(title),
        include_str!("page.css")
    )
}

/// Text that cannot be taken for markup, in an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push_str("&#10;"),
            // a path can hold what a page must not
            control if control.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// Whether a page can be read as XML, which is stricter than HTML; how many elements it has.
#[cfg(test)]
pub(crate) fn assert_well_formed(page: &str) -> usize {
    let mut reader = quick_xml::Reader::from_str(page);
    let mut elements = 0;
    loop {
        match reader.read_event().unwrap_or_else(|failure| {
            panic!("at {}: {failure}", reader.error_position());
        }) {
            quick_xml::events::Event::Eof => return elements,
            quick_xml::events::Event::Start(start) | quick_xml::events::Event::Empty(start) => {
                elements += 1;
                for attribute in start.attributes() {
                    attribute.unwrap().unescape_value().unwrap();
                }
            }
            quick_xml::events::Event::Text(text) => {
                text.decode().unwrap();
            }
            _ => {}
        }
    }
}
