//! Whose a file is: users and groups as the files of a system say it, also of a system on a card that is mounted here.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The users and groups of a system.
#[derive(Default)]
pub struct Owners {
    /// Name, number, number of the first group.
    users: Vec<(String, u32, u32)>,
    /// Name, number, members.
    groups: Vec<(String, u32, Vec<String>)>,
}

/// Who a service runs as.
#[derive(Debug, PartialEq, Eq)]
pub struct RunsAs {
    /// The user's number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
    /// Those of all its groups.
    pub groups: BTreeSet<u32>,
}

/// What is to be done with a file.
#[derive(Clone, Copy)]
pub enum Access {
    Read = 4,
    Write = 2,
    Search = 1,
}

impl Owners {
    /// Reads them; a file that is not there has none.
    pub fn of(root: &Path) -> Self {
        let read = |name| fs::read(root.join(name)).unwrap_or_default();
        let lines = |bytes: Vec<u8>| -> Vec<Vec<String>> {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
        };
        let number = |fields: &[String], at: usize| fields.get(at).and_then(|n| n.parse().ok());
        let users = lines(read("etc/passwd"))
            .into_iter()
            .filter_map(|fields| Some((fields.first()?.clone(), number(&fields, 2)?, number(&fields, 3)?)));
        let groups = lines(read("etc/group")).into_iter().filter_map(|fields| {
            let members = fields.get(3).map(|members| members.split(',').map(str::to_owned).collect());
            Some((fields.first()?.clone(), number(&fields, 2)?, members.unwrap_or_default()))
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// Names a user; by the number, if that has no name.
    pub fn user(&self, uid: u32) -> String {
        let known = self.users.iter().find(|(_, number, _)| *number == uid);
        known.map_or_else(|| uid.to_string(), |(name, ..)| name.clone())
    }

    /// Names a group; by the number, if that has no name.
    pub fn group(&self, gid: u32) -> String {
        let known = self.groups.iter().find(|(_, number, _)| *number == gid);
        known.map_or_else(|| gid.to_string(), |(name, ..)| name.clone())
    }

    /// Finds a user by its name.
    pub fn user_named(&self, name: &str) -> Option<u32> {
        self.users.iter().find(|(of, ..)| of == name).map(|(_, number, _)| *number)
    }

    /// Finds a group by its name.
    pub fn group_named(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(of, ..)| of == name).map(|(_, number, _)| *number)
    }

    /// Returns who a service runs as that runs as a user with a group, and with more of them.
    pub fn runs_as(&self, uid: u32, gid: u32, more: &[u32]) -> RunsAs {
        let mut groups: BTreeSet<u32> = more.iter().copied().chain([gid]).collect();
        if let Some((name, ..)) = self.users.iter().find(|(_, number, _)| *number == uid) {
            let has = self.groups.iter().filter(|(_, _, members)| members.contains(name));
            groups.extend(has.map(|(_, number, _)| *number));
        }
        RunsAs { uid, gid, groups }
    }
}

impl RunsAs {
    /// Returns whether the mode of a file lets this user do that with it.
    pub fn may(&self, access: Access, file: &Metadata) -> bool {
        let shift = match () {
            () if self.uid == 0 => return true,
            () if file.uid() == self.uid => 6,
            () if self.groups.contains(&file.gid()) => 3,
            () => 0,
        };
        file.mode() >> shift & access as u32 != 0
    }
}
