//! Tables that fit the terminal.

/// Renders rows under a heading. With a `width` (the terminal's, in characters) the widest columns are
/// shortened until a row fits, marked by `…`; without one nothing is cut, as for a pipe.
pub(crate) fn render(heading: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|c| c.chars().count());
            cells
                .chain([heading[column].chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    if let Some(width) = width {
        shrink(&mut widths, width);
    }
    let mut text = String::new();
    let heading: Vec<String> = heading.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| fit(cell, *width))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

const NARROWEST: usize = 6;
/// What is left of the last column before others are cut.
const LAST: usize = 12;

/// Takes from the last column, which is where people read on, then from the widest, one character at a time,
/// until all fit or all are narrow. An address or a name that is cut is of no use.
fn shrink(widths: &mut [usize], total: usize) {
    let gaps = widths.len().saturating_sub(1) * 2;
    let too_wide = (widths.iter().sum::<usize>() + gaps).saturating_sub(total);
    if let Some(last) = widths.last_mut() {
        *last = (*last).min((*last).saturating_sub(too_wide).max(LAST));
    }
    while widths.iter().sum::<usize>() + gaps > total {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

/// Pads, or cuts with an ellipsis, to exactly `width` characters. Control characters never reach
/// the terminal.
fn fit(cell: &str, width: usize) -> String {
    let clean: String = cell
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if clean.chars().count() <= width {
        return format!("{clean:<width$}");
    }
    let mut cut: String = clean.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_are_aligned_and_the_widest_is_cut() {
        let rows = vec![vec![
            "web".into(),
            "a rather long reason that does not fit".into(),
        ]];
        assert_eq!(
            render(&["NAME", "WHY"], &rows, None),
            "NAME  WHY\nweb   a rather long reason that does not fit\n"
        );
        assert_eq!(
            render(&["NAME", "WHY"], &rows, Some(20)),
            "NAME  WHY\nweb   a rather long…\n"
        );
    }

    #[test]
    fn addresses_stay_whole_as_long_as_there_is_a_sentence_to_cut() {
        let row = ["web.1.0.1", "127.0.0.1:21000", "stopped as requested"];
        let rows = vec![row.map(str::to_owned).to_vec()];
        let text = render(&["INSTANCE", "ADDRESS", "WHY"], &rows, Some(42));
        assert_eq!(
            text,
            "INSTANCE   ADDRESS          WHY\nweb.1.0.1  127.0.0.1:21000  stopped as re…\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert!(!render(&["A"], &[vec!["x\u{1b}[31m".into()]], None).contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn rows_fit_where_they_can(cells in prop::collection::vec(".{0,40}", 3), width in 30..120_usize) {
            let text = render(&["A", "B", "C"], &[cells], Some(width));
            for line in text.lines() {
                prop_assert!(line.chars().count() <= width);
            }
        }
    }
}
