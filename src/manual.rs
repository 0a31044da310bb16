//! The words we use, the life of a request, and why the house is built as it is.
//!
//! # The house
//!
//! One crate. `lib.rs` lists its rooms from the ground up, and *a room uses only rooms listed above its own*;
//! `tests/layers.rs` keeps it so. Words (values) carry tables (state, no async), tables carry decisions (pure
//! functions), these carry what is outside (one foreign system each), then comes the living state, then the
//! doors, then the roof. Whoever reads a room needs to know only what is below it.
//!
//! Pingora gives us the process: signals, worker life cycle, hand-over of sockets, the admin page's HTTP. The
//! path of a MAPI request has its own HTTP/1.1 and knows nothing of Pingora.
//!
//! # What must never happen, in order
//!
//! When two of these collide, the earlier wins.
//!
//! 1. One person's mail reaches another.
//! 2. An Execute runs twice.
//! 3. A request that could have been routed is lost.
//! 4. A refusal is not explained.
//! 5. Processor time or memory is spent that a peer would not spend.
//!
//! # Lexicon
//!
//! One word per thing, in code, logs and documents.
//!
//! | Word | Meaning |
//! |---|---|
//! | connection | TCP, with a client or with a server; says nothing about who is on it |
//! | session | MAPI's: begun by Connect or Bind, carried by cookies, ended by Disconnect, Unbind or expiry; crosses connections. `[MS-OXCMAPIHTTP]` calls it a session context |
//! | context cookie | the cookie that names a session to the server that made it: `MapiContext`, or `sid` in gromox |
//! | route cookie | ours: where a session lives and whose it is, sealed ([`seal`](crate::seal)) |
//! | endpoint | `emsmdb` (mailboxes) or `nspi` (address book); each has its own sessions |
//! | front, back | towards clients, towards mailbox servers |
//! | channel | one direction of Outlook Anywhere: a request, or an answer, that lasts for hours on a connection of its own |
//! | virtual connection | the channels that belong together, IN and OUT and whatever takes over from them; at one server, of one user ([`channels`](crate::channels)) |
//! | leg | one connection to a mailbox server, for one exchange; kept for the next where that is safe |
//! | lane | which kept legs a request may use: never one that another identity has used |
//! | mailbox, database, copy, server | a mailbox is in one database; a database has copies on servers; one copy is active |
//! | placement | which server holds the active copy of each database ([`placement`](crate::placement)) |
//! | home | where a database is: its copies, and the active one; what the directory tells and the configuration says together make it |
//! | difference | what these two do not agree upon; said once, and told on the status page |
//! | epoch | counts the changes of the placement |
//! | generation | counts the configurations accepted |
//! | snapshot | the world as one configuration describes it, frozen; a request takes one and keeps it to its end |
//! | pin | database and server of a session: from the table, or out of the route cookie |
//! | eligible | may be given requests: up, or too few are up to believe it |
//! | offer | what Autodiscover tells a client it may speak ([`capability`](crate::capability)) |
//! | virtual directory | what servers serve beside MAPI, Autodiscover and RPC: `/ews`, `/owa` and so on; `vdir` in code and metrics |
//! | anchor | what says whose mailbox decides to which server such a request goes |
//! | strand | one request of an HTTP/2 connection, which the relay takes for a connection ([`http2`](crate::http2)) |
//! | ward | a virtual directory on the servers, as far as its health is concerned |
//! | stranger | who is served without a logon of ours, where the mailbox server shows a form |
//! | dialect | how Autodiscover is asked: `pox`, `soap` or `json` |
//! | flavour | whose habits a server has, `exchange` or `gromox`: names of cookies, numbers of codes |
//! | refusal | a request that we end ourselves; two voices, one for the log and one for the client ([`refusal`](crate::refusal)) |
//! | blame | whose move it is after a refusal: the client's, the server's, the site's, ours |
//! | permit | the right to have a request under way; given back when dropped ([`admission`](crate::admission)) |
//! | held poll | a NotificationWait that the server holds open, up to minutes |
//! | in-band | inside an answer whose status was sent long ago: behind DONE, where MAPI looks for its code |
//! | bill | what one request was and cost; settled when its future ends, however it ends |
//! | usage | who used how much: requests, processor time and bytes by user, mailbox, client version and database, in bounded lists |
//! | probe | what Outlook does, tried step by step from outside ([`probe`](crate::probe)); `health.probe` is only a login |
//! | journal | the logs of requests: the access log, and the files for Log Parser |
//! | observation, flip | what a request saw of a server; the change of its health that follows from several |
//!
//! # Life of a request
//!
//! | Where | What |
//! |---|---|
//! | `listener.rs`, `listener/accept.rs` | a worker accepts, reads a PROXY head where one is due, does the handshake within its deadline and hands over a stream that counts its bytes. The connection stays on this thread for life |
//! | `relay/connection.rs` | one future per connection: request after request until either side is done. What a parked poll keeps is in here, so it is small |
//! | `relay/head.rs`, `relay/target.rs`, `relay/fields.rs` | the gate. The head is read once and strictly; the path is normalised once, and that is also what is sent on; fields by which a client could say who or where it is are left out, in every spelling |
//! | `relay/admit.rs` | who asks ([`auth`](crate::auth): memo of the connection, cache, then slow work off the worker), whose mailbox (session, else [`directory`](crate::directory): a file, or what is remembered of an [`ldap`](crate::ldap) service, then slow work), a [`Permit`](crate::admission::Permit), and then [`routing::decide`](crate::routing::decide) |
//! | [`routing`](crate::routing) | pure: pin, placement and health in, a server or a [`Refusal`](crate::refusal::Refusal) out |
//! | `relay/forward.rs` | a kept leg or a new one; head and first piece of the body in one write. Another leg is tried only while no byte was written |
//! | `relay/exchange.rs` | both directions at once: the answer may begin before the request has ended, and a client that leaves closes the leg |
//! | `relay/answer.rs`, `relay/respond.rs` | the answer's head, written anew; its body streamed as it comes and followed, not changed, for tags and codes |
//! | `relay/hold.rs`, `relay/asks.rs`, `relay/in_band.rs` | held polls: told to look when the world changes, ended with code 10 between two chunks when their database is elsewhere |
//! | `relay/learn.rs` | sessions begin, move on and end by what the server really answered |
//! | `relay/refuse.rs` | what we answer ourselves |
//! | `relay/urls.rs` | the two answers of the address book that are changed: they name a server, and are to name us |
//! | `relay/discover.rs` | Autodiscover, which leaves the way at `relay/admit.rs`: its request is read whole, judged by [`capability::offer`](crate::capability::offer), and answered by us or by a server whose answer is filtered ([`autodiscover`](crate::autodiscover)) |
//! | `relay/channel.rs`, `relay/channel/stream.rs` | Outlook Anywhere, which leaves it there too: the first PDU of the body is read, [`channels`](crate::channels) and [`routing::channel`](crate::routing::channel) name the server, and the channel is carried until it ends |
//! | `relay/vdir.rs` | the other virtual directories ([`vdir`](crate::vdir) reads their paths), which leave the way at `relay/admit.rs` as well: anchor, server, and both bodies as they come |
//! | `http2.rs`, `http2/strand.rs`, `relay/shared.rs` | a request by HTTP/2 begins here, written as HTTP/1.1, and goes the same way; what may not share a connection is sent away at `relay/admit.rs` |
//! | `relay/bill.rs` | metrics, usage and the access line, on every way out |
//!
//! Beside it, [`upkeep`](crate::upkeep) runs the loops that change the world: one writes the configuration's
//! part of the snapshot, one the servers' health, one that of each directory on them, one what the directory service tells
//! of copies, one the keys of identity providers, one sweeps, one runs the probes. Requests only send observations.
//!
//! # Decisions, and why
//!
//! **A relay of our own.** A general HTTP proxy engine could not end a held poll in-band, see a head before it is
//! parsed leniently, or say how many bytes of a request were written; and it cost several times as much per
//! Execute and per held poll.
//!
//! **Handshakes are rustls' work, records are ours.** A session of rustls keeps a read buffer for life and copies
//! every byte twice; [`tls`](crate::tls) takes its keys over when the handshake is done and seals from the caller's
//! memory into what is sent. That is worth 5 KB per held poll. Key updates, alerts and key limits are kept there, and
//! tested against rustls' own client under every cipher suite.
//!
//! **The database pins a session, not the server.** A session whose database moved is over, wherever the old
//! server is; a session whose server is merely down is not. Nothing that a client sends names a server: the
//! route cookie is sealed and bound to the identity, and a mailbox is looked up.
//!
//! **Placement owns, health vetoes.** A passive copy never gets a request, however healthy it is: two servers
//! that both believe to own a database are worse than none. So a failover is the site's act, and ours to obey
//! within one request.
//!
//! **The directory knows copies, the site which is active.** Where copies come from Active Directory
//! (`databases.copies_from`), the placement is a pure function of two words, that of the configuration and the last good
//! one of the directory: a reload and a reading may come in either order and give the same map
//! ([`Homes`](crate::placement::Homes)). What the site says of a database goes before what the directory says, even where
//! that knows no such copy, because replication is slower than a failover. An answer that tells of nothing, or of less than
//! half of what there was, is taken for somebody's mistake: nobody removes mailboxes' databases by the dozen within
//! half a minute, and a right that was withdrawn looks just so. Two databases of one name have no home, because a mailbox
//! names its database by that alone.
//!
//! **Moved means code 10.** An old session's request gets 200 with `X-ResponseCode: 10`, a held poll gets it
//! behind DONE, jittered. It is the protocol's own word for "connect again"; anything else makes Outlook wait for
//! minutes or ask for a restart. `[MS-OXCMAPIHTTP] 3.2.5.2`
//!
//! **The server pins a virtual connection.** What runs on it knows its server and no other, and ends with either of its
//! channels. So it cannot follow its database: when that moves, both channels are dropped, which is the protocol's own
//! way to begin anew. `[MS-RPCH] 3.2.1.5.3`
//!
//! **No repetition once a byte was written.** Not by method, not by request type: whether an Execute ran cannot be
//! known from outside, and running it twice is mail sent twice.
//!
//! **One identity per leg, where servers authenticate connections.** A kept leg belongs to the identity that used
//! it; a fence counts every time something would have broken that, and the count must stay 0.
//!
//! **A request sees one world.** It takes the snapshot once. Everything it decides comes from the same
//! configuration, placement and health; a reload swaps one pointer and disturbs nobody.
//!
//! **Every table has a cap, every wait a deadline.** What happens at the cap is written at the table. Deadlines of
//! held polls follow what the server announced in `X-PendingPeriod`.
//!
//! **The other virtual directories are places of the same door.** A client's connection mixes paths: WinHTTP sends
//! web services and MAPI on one. A proxy engine beside the relay would need the connection handed back and forth
//! between two readings of HTTP, a second gate, a second seam for logons and a second meter. So EWS, OWA and the
//! others pass the gate, the logon, the hand-off, the identity fence and the accounts that MAPI passes, and differ
//! in what follows: the body is nobody's business, and the mailbox is mostly the user's own.
//!
//! **HTTP/2 is another way to write the same request.** A second engine beside the relay would need a second gate, a
//! second logon and a second account, and every rule would have to be kept twice. So [`http2`](crate::http2) writes each
//! stream as one request of HTTP/1.1, on a stream that is the connection the relay takes it for; frames are the work of the
//! crate `h2`. The answer is read back in the relay's own words. Translating is where front ends were passed by: what
//! HTTP/1.1 could not say, or could say in two ways, is refused before a byte of it is written. What proves a connection,
//! or has one of its own, is not translated at all: the client is told to come again by HTTP/1.1, and that is judged beside
//! the policies of the directories ([`Settings::by_http2`](crate::config::Settings::by_http2)). MAPI has no part in it and
//! pays nothing for it.
//!
//! **A path is judged as it is sent.** Below another directory nothing is decoded and nothing resolved: what could
//! be read in two ways is refused, so that no server behind us can read a third. Nothing a client writes names a
//! server; a header, a path or a sealed cookie may name a mailbox, which the directory must know and the user must
//! be let through to.
//!
//! **Nobody's mail without a logon, not even a form's.** No preset lets strangers through to mailbox servers. Where
//! a site says `authentication: [server]`, they have connections of their own on which nobody is known.
//!
//! **Time is an argument** below `upkeep`, the doors and the roof, so that tests and simulations own the clock.
//! A probe asks it itself: how long things take is what it tells.
//!
//! **The lab shares words, not HTTP.** The simulated servers and Outlooks have their own reading of the protocol:
//! a mistake must be made twice to stay hidden.
//!
//! # Handing users on: what a site does first
//!
//! Whichever mode, try one user with `mapigate auth test` before clients come, and read the `why` of the access log
//! when one is refused. [`auth::handoff`](crate::auth::handoff) does the handing on, [`gss`](crate::gss) gets the tickets.
//!
//! **passthrough.** Nothing to prepare but the servers: each must take what clients show us, under the name clients
//! use. Tokens need that name among the audience; Basic must be enabled on the server's `/mapi`. A client that came by a
//! certificate, or whose Negotiate we heard ourselves, has nothing that could be passed through.
//!
//! **kerberos.** An account of ours, a name for every server, and the right to delegate to those names. In Active
//! Directory, as a domain administrator:
//!
//! 1. *The account*, with AES keys: `New-ADUser svc-mail -KerberosEncryptionType AES256 …`. Put it into no group, and not into
//!    *Protected Users*, whose members may not delegate.
//! 2. *Our names on it*, where clients come by Negotiate: `setspn -S HTTP/mail.contoso.com svc-mail` for each name. Tickets
//!    to another account's name are no evidence for this one.
//! 3. *The servers' names*, as `backend_identity.kerberos.service` spells them: `setspn -S HTTP/mbx1.contoso.com MBX1$`.
//!    Exchange servers have them; `setspn -Q HTTP/mbx1.contoso.com` must find exactly one account. gromox with `internal-gss`
//!    opens tickets with the keytab of whichever account has the name.
//! 4. *The delegation*, name by name: `Set-ADUser svc-mail -Add @{'msDS-AllowedToDelegateTo'='HTTP/mbx1.contoso.com'}`. That
//!    alone is *use Kerberos only*, and hands on clients that come by Negotiate. For all others
//!    `Set-ADAccountControl svc-mail -TrustedToAuthForDelegation $true`: *any authentication protocol*. The key table
//!    then opens every mailbox; leave it off where every client has tickets. Never *trust for delegation to any
//!    service*: clients would forward tickets that open everything of theirs, and we throw those away.
//! 5. *The key table*: `ktpass … -out mapigate.keytab`, or `msktutil`; mode 0640, group mapigate. `klist -kte` shows which
//!    names and keys are in it. It is made anew with each change of the password.
//! 6. *Who must not be handed on*: members of *Protected Users*, and accounts marked *sensitive and cannot be delegated*. The
//!    KDC refuses them, we answer 403. Mark administrators so.
//! 7. *IIS* keeps a connection signed on by Kerberos only with `authPersistNonNTLM`; where that is off, write
//!    `token_per: request`.
//!
//! With Samba: `samba-tool spn add`, `samba-tool delegation add-service svc-mail HTTP/mbx1.contoso.com`,
//! `samba-tool delegation for-any-protocol svc-mail on`, `samba-tool domain exportkeytab`. What the KDC says when a step
//! is missing:
//!
//! | The log says | Missing |
//! |---|---|
//! | KDC can't fulfill requested option | step 4: the server is not in the list; or the client came without a ticket and the account may delegate by Kerberos only |
//! | Server not found in Kerberos database | step 3: nobody has the server's name, or `service` spells another |
//! | Client not found in Kerberos database | `realms`: the login name's domain is not the realm |
//! | ticket of our own account | step 5: the key table is older than the password, or of another account |
//! | ticket of the client: … | the ticket was to another account (step 2), not forwardable, or forwarded as a whole |
//!
//! **assertion.** A key pair of ours, the public half at every server, and clocks that agree by less than `lifetime`. A server
//! must check the signature, `aud` (its name under `servers`) and `exp`; [`assertion`](crate::auth::handoff::assertion) is
//! what it has to do, in sixty lines. gromox does it by our helper: `scheme: negotiate` here, and there
//! `gss_program = /usr/bin/mapigate assertion-helper --keys /etc/mapigate/assertion.pub --server MBX1`. gromox starts it for
//! each connection, and asks it once: the connection is that user's from then on.
//!
//! **basic_service.** A service account at servers made for it, which believe its header and nobody else's. No Exchange and
//! no gromox does.
//!
//! **trusted_header.** A listener of the server's own that demands a client certificate of an authority that signs for us
//! alone. Whoever else gets such a certificate, or reaches the server past that listener, is everybody.
//!
//! # Where to add what
//!
//! | To add | Begin in | And |
//! |---|---|---|
//! | a key of the configuration | `config/keys.rs` | `config/settings.rs`, `conf/reference.yaml` (printed by `mapigate schema --reference`), a wrong file in `tests/bad_configs` |
//! | a way to end a request | [`refusal`](crate::refusal) | its words for both voices, its label, a test that meets it |
//! | a metric | [`metrics`](crate::metrics) | its row in the README |
//! | a field of the access log | `journal/line.rs`, and under the same name `journal/proxy_line.rs` | its row in the README |
//! | an authentication scheme | [`auth`](crate::auth) | a file in `auth/` that implements `Method`, a field of `Schemes`, a [`Scheme`](crate::auth::Scheme); [`handoff`](crate::auth::handoff) for what servers see |
//! | another source of mailboxes or placement | [`directory`](crate::directory), [`placement`](crate::placement) | a loop in [`upkeep`](crate::upkeep) that is its only writer, as `upkeep/copies.rs` |
//! | a virtual directory | [`vdir`](crate::vdir) | its habits in `config/presets.rs`, a row in every table of `tests/e2e/directories` |
//! | a habit of a server family | [`mapi::Flavour`](crate::mapi::Flavour) | data, not an `if` in the relay; the lab's mailbox server |
//! | a wrong thing a server may do | `lab/mailbox_server/faults.rs` | what Outlook sees of it, in `tests/lab` |
//! | something a probe tries | `probe/step.rs` | a file for it beside, what its failures mean in `probe/advice.rs`, a broken set-up in `tests/e2e/probe/broken.rs` |
//! | a decision about requests | its own room | what [`explain`](crate::explain) tells of it |
//! | an act of the demo | `lab/demo/acts.rs` | a promise, with a name |
//! | a command | [`commands`](crate::commands) | a file of its own; it speaks to people |
