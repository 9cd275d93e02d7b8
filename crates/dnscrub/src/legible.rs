//! Numbers and text of strangers as people read them.

use std::fmt::Write as _;

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The nearest whole number, `15,204`; 0 for what is below.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that no integer holds becomes the nearest one"
)]
pub(crate) fn whole(number: f64) -> String {
    grouped(number.max(0.0).round() as u64)
}

/// Events a second: `15,204`, with a decimal where there are few, `4.2`.
pub(crate) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 {
        format!("{rate:.1}")
    } else {
        whole(rate)
    }
}

/// Text with everything visible: characters that control, hide or reorder what stands around them are
/// written as `\u{…}`.
pub(crate) fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        let unseen = character.is_control()
            || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
        if unseen {
            let _ = write!(seen, "\\u{{{:x}}}", u32::from(character));
        } else {
            seen.push(character);
        }
    }
    seen
}

/// The same for text of several lines, which stay lines.
pub(crate) fn visible_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(visible).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let text = "a\u{1b}[31m\r\u{7f}\u{9b}\u{202e}é\nb\t";
        assert_eq!(
            visible_lines(text),
            "a\\u{1b}[31m\\u{d}\\u{7f}\\u{9b}\\u{202e}é\nb\\u{9}"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        let text = [0, 12, 123, 1_234, 123_456, 1_234_567].map(grouped);
        assert_eq!(text, ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
        assert_eq!([7999.6, -3.0, f64::NAN].map(whole), ["8,000", "0", "0"]);
        assert_eq!([0.0, 4.25, 15_204.4].map(rate), ["0", "4.2", "15,204"]);
    }
}
