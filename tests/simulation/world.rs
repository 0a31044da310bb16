//! Servers, clients, databases and the front end between them, driven by a seed.

use crate::Rules;
use crate::client::Client;
use crate::front::{Asked, Front, Reply, Site};
use crate::judge::Before;
use crate::server::{Loss, Server};
use mapigate::config::settings::Database;
use mapigate::health::Observation;
use mapigate::ids::{DatabaseName, MailboxId, ServerName};
use mapigate::mapi::RequestType;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Instant;

const FAULTY_STEPS: u32 = 400;
/// Steps of two seconds until everybody has worked after the last fault: a server that flapped may be
/// held down for eighty seconds.
const CALM_STEPS: u32 = 60;
/// The last of them, in which nobody may be refused anything.
const PERFECT_STEPS: u32 = 5;

pub(crate) struct World {
    random: fastrand::Rng,
    pub(crate) now: u64,
    pub(crate) servers: BTreeMap<ServerName, Server>,
    pub(crate) databases: BTreeMap<DatabaseName, Database>,
    removed: BTreeMap<DatabaseName, Database>,
    clients: Vec<Client>,
    pub(crate) front: Front,
    capacity: usize,
    pub(crate) journal: BTreeMap<u64, u32>,
    nonce: u64,
    pub(crate) seen: Seen,
}

/// What happened, so that a simulation in which nothing happens is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) executed: u64,
    pub(crate) gone_by_move: u64,
    pub(crate) unavailable: u64,
    pub(crate) failed: u64,
    pub(crate) foreign: u64,
    pub(crate) resumed_by_ticket: u64,
    pub(crate) ended_here: u64,
    pub(crate) full: u64,
    pub(crate) moves: u64,
    pub(crate) restarts: u64,
    pub(crate) lost_by_server: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, more: Self) {
        self.executed += more.executed;
        self.gone_by_move += more.gone_by_move;
        self.unavailable += more.unavailable;
        self.failed += more.failed;
        self.foreign += more.foreign;
        self.resumed_by_ticket += more.resumed_by_ticket;
        self.ended_here += more.ended_here;
        self.full += more.full;
        self.moves += more.moves;
        self.restarts += more.restarts;
        self.lost_by_server += more.lost_by_server;
    }
}

/// Lives through one seed; `Err` names the step and the invariant that broke.
pub(crate) fn live(seed: u64, rules: Rules, start: Instant) -> Result<Seen, String> {
    let mut world = World::new(seed, rules, start);
    for step in 0..FAULTY_STEPS {
        world
            .faulty_step()
            .map_err(|broken| format!("step {step}: {broken}"))?;
    }
    world.end_faults();
    for step in 0..CALM_STEPS {
        world
            .calm_step(step >= CALM_STEPS - PERFECT_STEPS)
            .map_err(|broken| format!("calm step {step}: {broken}"))?;
    }
    world.everybody_worked()?;
    world.seen.full = world.front.full;
    Ok(world.seen)
}

impl World {
    fn new(seed: u64, rules: Rules, start: Instant) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let names: Vec<ServerName> = (1..=random.usize(2..=5))
            .map(|number| ServerName::new(format!("MBX{number}")))
            .collect();
        let mut databases = BTreeMap::new();
        for number in 1..=random.usize(1..=6) {
            let mut copies = names.clone();
            random.shuffle(&mut copies);
            copies.truncate(random.usize(1..=3));
            let active = copies[0].clone();
            let name = DatabaseName::new(format!("DB{number}"));
            databases.insert(name, Database { copies, active });
        }
        let clients: Vec<Client> = (0..random.usize(3..=20)).map(Client::new).collect();
        let homes: Vec<DatabaseName> = databases.keys().cloned().collect();
        let directory = clients.iter().map(|client| {
            let home = homes[random.usize(..homes.len())].clone();
            (client.mailbox.clone(), home)
        });
        let directory: BTreeMap<MailboxId, DatabaseName> = directory.collect();
        let servers = names
            .into_iter()
            .map(|name| (name.clone(), Server::new(name)));
        let servers: BTreeMap<ServerName, Server> = servers.collect();
        let capacity = random.usize(2..=30);
        let front = Front::new(&databases, directory, &servers, capacity, start, rules);
        Self {
            random,
            now: 0,
            servers,
            databases,
            removed: BTreeMap::new(),
            clients,
            front,
            capacity,
            journal: BTreeMap::new(),
            nonce: 0,
            seen: Seen::default(),
        }
    }

    fn faulty_step(&mut self) -> Result<(), String> {
        self.now += self.random.u64(0..4);
        if self.random.u32(..100) == 0 {
            self.now += self.random.u64(600..1500);
        }
        if self.random.u32(..8) == 0 {
            self.fault();
        }
        self.check_servers();
        for _ in 0..self.random.u32(1..4) {
            let number = self.random.usize(..self.clients.len());
            match self.random.u32(..20) {
                0 => self.clients[number].lose_cookies(),
                1 => self.clients[number].route = None,
                2 | 3 => self.intrude(number)?,
                _ => self.act(number)?,
            }
        }
        self.tables_are_bounded()
    }

    fn calm_step(&mut self, is_perfect: bool) -> Result<(), String> {
        self.now += 2;
        self.check_servers();
        for number in 0..self.clients.len() {
            let kind = match self.clients[number].context {
                Some(_) => RequestType::Execute,
                None => RequestType::Connect,
            };
            let reply = self.ask(number, kind)?;
            if is_perfect && !matches!(reply, Reply::Success { .. }) {
                return Err(format!("{reply:?} long after the last fault"));
            }
        }
        self.tables_are_bounded()
    }

    fn fault(&mut self) {
        let names: Vec<ServerName> = self.servers.keys().cloned().collect();
        let name = &names[self.random.usize(..names.len())];
        let Some(server) = self.servers.get_mut(name) else {
            return;
        };
        match self.random.u32(..16) {
            0 | 1 => server.crash(),
            2 | 3 => server.is_running = true,
            4 => server.is_cut_off = true,
            5 | 6 => server.is_cut_off = false,
            7 => server.loses_next = Some(Loss::Reset),
            8 => server.loses_next = Some(Loss::Crash),
            9 => {
                self.front
                    .restart(&self.servers, self.random.u8(..), self.now);
                self.seen.restarts += 1;
            }
            10 => self.remove_or_return_a_database(),
            11 => self.move_a_mailbox(),
            _ => self.move_a_database(),
        }
    }

    fn end_faults(&mut self) {
        for server in self.servers.values_mut() {
            (server.is_running, server.is_cut_off) = (true, false);
            server.loses_next = None;
        }
        self.databases.append(&mut self.removed);
        self.reload();
        for _ in 0..3 {
            self.move_a_database();
        }
        for client in &mut self.clients {
            client.has_worked = false;
        }
    }

    fn move_a_database(&mut self) {
        let names: Vec<DatabaseName> = self.databases.keys().cloned().collect();
        let Some(name) = self.random.choice(&names) else {
            return;
        };
        let Some(home) = self.databases.get_mut(name) else {
            return;
        };
        let active = home.copies[self.random.usize(..home.copies.len())].clone();
        let before = std::mem::replace(&mut home.active, active);
        // The old server may be unreachable, and believe for a while that nothing happened.
        if self.random.bool()
            && before != home.active
            && let Some(server) = self.servers.get_mut(&before)
        {
            server.dismount(name);
        }
        self.seen.moves += u64::from(before != home.active);
        self.reload();
    }

    fn remove_or_return_a_database(&mut self) {
        if let Some((name, home)) = self.removed.pop_first() {
            self.databases.insert(name, home);
        } else if let Some((name, home)) = self.databases.pop_last() {
            self.removed.insert(name, home);
        }
        self.reload();
    }

    fn move_a_mailbox(&mut self) {
        let names: Vec<DatabaseName> = self.databases.keys().cloned().collect();
        let number = self.random.usize(..self.clients.len());
        let mailbox = self.clients[number].mailbox.clone();
        if let Some(name) = self.random.choice(&names) {
            self.front.directory.insert(mailbox, name.clone());
        }
    }

    fn reload(&mut self) {
        self.front.reload(&self.databases, &self.servers, self.now);
    }

    fn check_servers(&mut self) {
        for (name, server) in &self.servers {
            let observation = match server.is_reachable() {
                true => Observation::CheckPassed,
                false => Observation::Refused,
            };
            self.front.observe(name, observation, self.now);
        }
    }

    fn act(&mut self, number: usize) -> Result<(), String> {
        let kind = match (&self.clients[number].context, self.random.u32(..20)) {
            (None, 0) => RequestType::Ping,
            (None, _) | (Some(_), 0) => RequestType::Connect,
            (Some(_), 1) => RequestType::Disconnect,
            (Some(_), 2) => RequestType::Ping,
            (Some(_), 3..=6) => RequestType::NotificationWait,
            (Some(_), _) => RequestType::Execute,
        };
        self.ask(number, kind).map(drop)
    }

    /// Somebody shows another's cookies.
    fn intrude(&mut self, number: usize) -> Result<(), String> {
        let victim = self.clients[self.random.usize(..self.clients.len())].clone();
        let intruder = &self.clients[number];
        if victim.user == intruder.user || victim.context.is_none() {
            return Ok(());
        }
        let kinds = [
            RequestType::Execute,
            RequestType::NotificationWait,
            RequestType::Disconnect,
        ];
        self.nonce += 1;
        let mut asked = intruder.asks(kinds[self.random.usize(..kinds.len())], self.nonce);
        asked.context.clone_from(&victim.context);
        if self.random.bool() {
            asked.route.clone_from(&victim.route);
        }
        if self.random.bool() {
            asked.mailbox.clone_from(&victim.mailbox);
        }
        let reply = self.send(&asked)?;
        self.seen.foreign += 1;
        match reply {
            Reply::Success { by: Some(_), .. } => {
                Err(format!("{asked:?} succeeded in the context of {victim:?}"))
            }
            _ => Ok(()),
        }
    }

    fn ask(&mut self, number: usize, kind: RequestType) -> Result<Reply, String> {
        self.nonce += 1;
        let asked = self.clients[number].asks(kind, self.nonce);
        let before = Before::of(self, &asked);
        let reply = self.send(&asked)?;
        before
            .judge(self, &asked, &reply)
            .map_err(|broken| format!("{broken}: {asked:?} got {reply:?}, {before:?}"))?;
        self.clients[number].take(kind, &reply);
        Ok(reply)
    }

    fn send(&mut self, asked: &Asked) -> Result<Reply, String> {
        let mut site = Site {
            servers: &mut self.servers,
            journal: &mut self.journal,
            now: self.now,
        };
        let reply = self.front.handle(asked, &mut site)?;
        match self.journal.get(&asked.nonce) {
            Some(times) if *times > 1 => Err(format!("{asked:?} executed {times} times")),
            _ => Ok(reply),
        }
    }

    fn tables_are_bounded(&mut self) -> Result<(), String> {
        if self.random.u32(..10) == 0 {
            self.front.sessions.sweep(self.front.at(self.now));
        }
        match self.front.sessions.len() {
            len if len > self.capacity => Err(format!("{len} sessions of {}", self.capacity)),
            _ => Ok(()),
        }
    }

    fn everybody_worked(&self) -> Result<(), String> {
        let idle = self.clients.iter().find(|client| !client.has_worked);
        idle.map_or(Ok(()), |client| Err(format!("never recovered: {client:?}")))
    }
}
