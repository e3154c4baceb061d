//! What has been seen of a package, and whether it fits together.

use std::collections::{HashMap, VecDeque};

use crate::error::Refused;
use crate::limits::Limits;
use crate::path::{self, PathProblem};

/// Links followed before a chain counts as a loop; as in Linux.
const MOST_HOPS: u32 = 40;
/// Steps spent on all links together; real packages need a few for each.
const MOST_STEPS: u64 = 1_000_000;

/// What is wrong with a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkProblem {
    /// Its text is not a relative path.
    #[error("has a target that {0}")]
    Target(PathProblem),
    /// It leads out of the package.
    #[error("leads out of the package")]
    Leaves,
    /// It leads to nothing, or through a file.
    #[error("leads to nothing in the package")]
    Nowhere,
    /// It leads back to itself, or over too many links.
    #[error("is a loop or a chain of too many links")]
    Loop,
}

/// What an entry is, as far as names are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind<'a> {
    Dir,
    File { size: u64 },
    Link { target: &'a str },
}

enum Node {
    Dir,
    File,
    Link(String),
}

/// The names of a package, checked one by one as they come.
pub(crate) struct Tree {
    limits: Limits,
    /// By folded name, so that clashes are found; with the name as it is.
    nodes: HashMap<String, (String, Node)>,
    links: u64,
    name_bytes: u64,
    total_bytes: u64,
}

impl Tree {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            nodes: HashMap::new(),
            links: 0,
            name_bytes: 0,
            total_bytes: 0,
        }
    }

    /// Takes an entry. Its path has been through [`path::check`].
    pub(crate) fn add(&mut self, path: &str, kind: NodeKind<'_>) -> Result<(), Refused> {
        self.count(path, kind)?;
        if let Some(parent) = path::parent(path)
            && !matches!(self.get(parent), Some(Node::Dir))
        {
            return Err(Refused::Parent {
                path: path.to_owned(),
            });
        }
        let node = match kind {
            NodeKind::Dir => Node::Dir,
            NodeKind::File { .. } => Node::File,
            NodeKind::Link { target } => {
                path::check_target(target.as_bytes())
                    .map_err(|problem| refuse(path, LinkProblem::Target(problem)))?;
                Node::Link(target.to_owned())
            }
        };
        let folded = path::fold(path);
        if let Some((other, _)) = self.nodes.get(&folded) {
            let path = path.to_owned();
            return Err(if *other == path {
                Refused::Duplicate { path }
            } else {
                Refused::CaseClash {
                    path,
                    other: other.clone(),
                }
            });
        }
        self.nodes.insert(folded, (path.to_owned(), node));
        Ok(())
    }

    fn count(&mut self, path: &str, kind: NodeKind<'_>) -> Result<(), Refused> {
        let (link, target, size) = match kind {
            NodeKind::Dir => (0, 0, 0),
            NodeKind::File { size } => (0, 0, size),
            NodeKind::Link { target } => (1, target.len(), 0),
        };
        self.links += link;
        self.name_bytes += (path.len() + target) as u64;
        self.total_bytes = self.total_bytes.saturating_add(size);
        let limits = &self.limits;
        for (what, used, limit) in [
            ("entries", self.nodes.len() as u64 + 1, limits.entries),
            ("links", self.links, limits.links),
            ("bytes of names", self.name_bytes, limits.name_bytes),
            ("bytes in files", self.total_bytes, limits.total_bytes),
        ] {
            if used > limit {
                return Err(Refused::TooMuch { what, limit });
            }
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Option<&Node> {
        self.nodes
            .get(&path::fold(path))
            .filter(|(name, _)| name == path)
            .map(|(_, node)| node)
    }

    /// Once everything is known: every link leads to something in the package.
    ///
    /// Comparing texts would not do: `a/l -> ..` makes `a/l/..` lead elsewhere than it reads. So each
    /// link is followed as the kernel would, and what does not exist is refused.
    pub(crate) fn check_links(&self) -> Result<(), Refused> {
        let mut steps = MOST_STEPS;
        let mut links: Vec<(&str, &str)> = self
            .nodes
            .values()
            .filter_map(|(path, node)| match node {
                Node::Link(target) => Some((path.as_str(), target.as_str())),
                _ => None,
            })
            .collect();
        // The map has no order; the first error must not depend on it.
        links.sort_unstable();
        links.into_iter().try_for_each(|(path, target)| {
            self.follow(path, target, &mut steps)
                .map_err(|problem| refuse(path, problem))
        })
    }

    fn follow<'a>(
        &'a self,
        path: &'a str,
        target: &'a str,
        steps: &mut u64,
    ) -> Result<(), LinkProblem> {
        let mut at = path::parent(path).unwrap_or_default().to_owned();
        let mut todo: VecDeque<&str> = target.split('/').collect();
        let mut hops = 0;
        while let Some(part) = todo.pop_front() {
            *steps = steps.checked_sub(1).ok_or(LinkProblem::Loop)?;
            match part {
                "" | "." => continue,
                ".." if at.is_empty() => return Err(LinkProblem::Leaves),
                ".." => {
                    at.truncate(path::parent(&at).map_or(0, str::len));
                    continue;
                }
                _ => {}
            }
            let above = at.len();
            if !at.is_empty() {
                at.push('/');
            }
            at.push_str(part);
            match self.get(&at).ok_or(LinkProblem::Nowhere)? {
                Node::Dir => {}
                Node::File if todo.is_empty() => {}
                Node::File => return Err(LinkProblem::Nowhere),
                Node::Link(next) => {
                    hops += 1;
                    if hops > MOST_HOPS {
                        return Err(LinkProblem::Loop);
                    }
                    at.truncate(above);
                    for part in next.rsplit('/') {
                        todo.push_front(part);
                    }
                }
            }
        }
        Ok(())
    }
}

fn refuse(path: &str, problem: LinkProblem) -> Refused {
    Refused::Link {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, NodeKind<'_>)]) -> Result<(), Refused> {
        let mut tree = Tree::new(Limits {
            entries: 60,
            ..Limits::default()
        });
        entries
            .iter()
            .try_for_each(|(path, kind)| tree.add(path, *kind))?;
        tree.check_links()
    }

    const FILE: NodeKind<'_> = NodeKind::File { size: 1 };

    fn link(target: &str) -> NodeKind<'_> {
        NodeKind::Link { target }
    }

    fn problem(entries: &[(&str, NodeKind<'_>)]) -> LinkProblem {
        match tree(entries).unwrap_err() {
            Refused::Link { problem, .. } => problem,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn links_inside_are_taken() {
        let entries = [
            ("a", NodeKind::Dir),
            ("a/b", NodeKind::Dir),
            ("a/b/f", FILE),
            ("l", link("a/b/f")),
            ("a/up", link("../l")),
            ("a/b/root", link("../..")),
            ("through", link("a/b/root/a/./b/f")),
        ];
        assert_eq!(tree(&entries), Ok(()));
    }

    #[test]
    fn links_that_leave_or_lead_nowhere_are_refused() {
        let base = [("a", NodeKind::Dir), ("a/f", FILE)];
        let with = |path, target| problem(&[&base[..], &[(path, link(target))]].concat());
        assert_eq!(with("l", ".."), LinkProblem::Leaves);
        assert_eq!(with("a/l", "../../x"), LinkProblem::Leaves);
        assert_eq!(
            with("l", "/etc/passwd"),
            LinkProblem::Target(PathProblem::Absolute)
        );
        assert_eq!(with("l", ""), LinkProblem::Target(PathProblem::Empty));
        assert_eq!(with("l", "a/g"), LinkProblem::Nowhere);
        assert_eq!(with("l", "a/f/.."), LinkProblem::Nowhere);
        assert_eq!(with("l", "l"), LinkProblem::Loop);
    }

    #[test]
    fn a_link_through_a_link_cannot_sneak_out() {
        // Read as text, "a/b/l/../.." is "a"; in truth it leaves the package.
        let entries = [
            ("a", NodeKind::Dir),
            ("a/b", NodeKind::Dir),
            ("a/b/l", link("../..")),
            ("x", link("a/b/l/../..")),
        ];
        assert_eq!(problem(&entries), LinkProblem::Leaves);
        let pair = [("p", link("q")), ("q", link("p"))];
        assert_eq!(problem(&pair), LinkProblem::Loop);
    }

    #[test]
    fn names_clash_once_and_parents_come_first() {
        let refused = |entries: &[(&str, NodeKind<'_>)]| tree(entries).unwrap_err().to_string();
        assert!(refused(&[("a", FILE), ("a", FILE)]).contains("twice"));
        assert!(refused(&[("é", FILE), ("E\u{301}", FILE)]).contains("differ only"));
        assert!(refused(&[("a/b", FILE)]).contains("folder that comes before"));
        assert!(refused(&[("a", FILE), ("a/b", FILE)]).contains("folder that comes before"));
        let through = [("d", NodeKind::Dir), ("l", link("d")), ("l/x", FILE)];
        assert!(refused(&through).contains("folder that comes before"));
        let names: Vec<String> = (0..61).map(|n| n.to_string()).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), FILE)).collect();
        assert!(refused(&many).contains("too many entries"));
        assert!(refused(&[("a", NodeKind::File { size: u64::MAX })]).contains("bytes in files"));
    }
}
