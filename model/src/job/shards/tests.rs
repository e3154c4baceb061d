use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

struct Text<'a>(&'a [u8]);

impl Lines for Text<'_> {
    type Error = Infallible;

    fn at_or_after(&mut self, at: u64) -> Result<u64, Infallible> {
        let size = self.0.len() as u64;
        Ok((at..size).find(|at| self.starts(*at)).unwrap_or(size))
    }

    fn before(&mut self, at: u64) -> Result<u64, Infallible> {
        Ok((0..at).rev().find(|at| self.starts(*at)).unwrap())
    }
}

impl Text<'_> {
    fn starts(&self, at: u64) -> bool {
        at == 0 || self.0[usize::try_from(at).unwrap() - 1] == b'\n'
    }
}

fn blob() -> BlobDigest {
    BlobDigest::from_bytes([7; 32])
}

fn cut(text: &[u8], wanted: u32) -> Vec<Vec<u8>> {
    let Ok(shards) = of_file(blob(), text.len() as u64, wanted, &mut Text(text));
    let take = |p: &Piece| {
        let from = usize::try_from(p.offset).unwrap();
        text[from..from + usize::try_from(p.bytes).unwrap()].to_vec()
    };
    shards
        .iter()
        .map(|shard| shard.pieces.iter().flat_map(take).collect())
        .collect()
}

fn file(name: &str, bytes: u64) -> InputFile {
    InputFile {
        name: name.to_owned(),
        blob: blob(),
        bytes,
    }
}

#[test]
fn a_file_is_cut_between_its_lines() {
    let text = b"one\ntwo\nthree\nfour";
    assert_eq!(
        cut(text, 2),
        [b"one\ntwo\nthree\n".to_vec(), b"four".to_vec()]
    );
    assert_eq!(cut(text, 1), [text.to_vec()]);
    assert_eq!(cut(text, 9).len(), 4, "no more shards than lines");
    assert_eq!(cut(b"", 4), [Vec::<u8>::new()]);
    assert_eq!(cut(b"\n\n", 2), [b"\n".to_vec(), b"\n".to_vec()]);
}

#[test]
fn a_long_line_leaves_the_others_their_shards() {
    let long = [b"a\nb\nc\n".as_slice(), &[b'x'; 500]].concat();
    let shards = cut(&long, 4);
    assert_eq!(shards.len(), 4);
    assert_eq!(shards[0], b"a\n");
}

#[test]
fn files_are_dealt_out_by_size_and_stay_whole() {
    let files = [file("b", 10), file("a", 7), file("d/e", 4), file("c", 0)];
    let names: Vec<Vec<String>> = of_folder(&files, 2)
        .into_iter()
        .map(|s| s.pieces.into_iter().map(|p| p.name).collect())
        .collect();
    assert_eq!(names, [vec!["b", "c"], vec!["a", "d/e"]]);
    assert_eq!(of_folder(&files, 9).len(), 4);
    let none = of_folder(&[], 3);
    assert_eq!(none.len(), 1);
    assert!(none[0].folder && none[0].pieces.is_empty());
}

#[test]
fn names_that_do_not_fit_into_one_folder_are_refused() {
    assert_eq!(misfit(&[file("a/b", 1), file("a-b", 1)]), None);
    for bad in [
        vec!["a", "a"],
        vec!["../x"],
        vec!["/x"],
        vec![""],
        vec!["a//b"],
        vec!["a/b", "a"],
        vec!["a\n"],
    ] {
        let files: Vec<InputFile> = bad.iter().map(|n| file(n, 1)).collect();
        assert!(misfit(&files).is_some(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn shards_together_are_the_file(
        lines in prop::collection::vec("[a-z]{0,40}", 0..30),
        newline in any::<bool>(),
        wanted in 1..12u32,
    ) {
        let mut text = lines.join("\n").into_bytes();
        if newline {
            text.push(b'\n');
        }
        let shards = cut(&text, wanted);
        prop_assert_eq!(shards.concat(), text.clone());
        for shard in shards.iter().rev().skip(1) {
            prop_assert_eq!(shard.last(), Some(&b'\n'), "a line is split");
        }
        let count = text.split_inclusive(|b| *b == b'\n').count();
        prop_assert_eq!(shards.len(), count.clamp(1, wanted as usize));
    }

    #[test]
    fn even_lines_give_even_shards(count in 1..400usize, wanted in 1..12u32) {
        let text = b"0123456789\n".repeat(count);
        let fair = text.len() / wanted as usize;
        for shard in cut(&text, wanted) {
            prop_assert!(shard.len() <= fair + 2 * 11, "{} of {fair}", shard.len());
        }
    }

    #[test]
    fn every_file_is_in_one_shard(sizes in prop::collection::vec(0..100u64, 0..40), wanted in 1..12u32) {
        let files: Vec<InputFile> = sizes.iter().enumerate().map(|(n, b)| file(&format!("{n:02}"), *b)).collect();
        let shards = of_folder(&files, wanted);
        prop_assert_eq!(shards.len(), files.len().clamp(1, wanted as usize));
        let mut names: Vec<&String> = shards.iter().flat_map(|s| &s.pieces).map(|p| &p.name).collect();
        names.sort();
        prop_assert_eq!(names, files.iter().map(|f| &f.name).collect::<Vec<_>>());
        let load = |s: &ShardInput| s.pieces.iter().map(|p| p.bytes).sum::<u64>();
        let (most, least) = (shards.iter().map(load).max(), shards.iter().map(load).min());
        let largest = sizes.iter().max().copied().unwrap_or(0);
        prop_assert!(most.unwrap() - least.unwrap() <= largest);
        for shard in &shards {
            prop_assert!(shard.pieces.is_sorted_by_key(|p| &p.name));
            prop_assert!(files.is_empty() || !shard.pieces.is_empty());
        }
    }
}
