//! Arguments and results of the mailbox store's procedures, as NDR writes them. `[MS-OXCRPC] 3.1.4, [C706] 14`

use crate::mapi::bodies::{ConnectRequest, ExecuteRequest, ExecuteSuccess};

/// Ends a session. `[MS-OXCRPC] 3.1.4.3`
pub const DISCONNECT: u16 = 1;
/// Opens a session. `[MS-OXCRPC] 3.1.4.1`
pub const CONNECT_EX: u16 = 10;
/// Executes remote operations. `[MS-OXCRPC] 3.1.4.2`
pub const RPC_EXT2: u16 = 11;
/// Gets a handle to be told of events by. `[MS-OXCRPC] 3.1.4.4`
pub const ASYNC_CONNECT_EX: u16 = 14;
/// Waits for an event, in the interface of its own. `[MS-OXCRPC] 3.3.4.1`
pub const ASYNC_WAIT_EX: u16 = 0;

/// Begins a session with the address book, in its interface. `[MS-OXNSPI] 3.1.4.1.1`
pub const NSPI_BIND: u16 = 0;
/// Ends it. `[MS-OXNSPI] 3.1.4.1.2`
pub const NSPI_UNBIND: u16 = 1;
/// Bytes of a `STAT`. `[MS-OXNSPI] 2.2.8`
const STAT_BYTES: usize = 36;

/// The stub data are not those of the procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stub data end inside {0}")]
pub struct BadStub(&'static str);

/// Names a session, or a way to be told of its events: attributes and a UUID. `[C706] 14.3.13`
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Handle(pub [u8; 20]);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle(…)")
    }
}

impl Handle {
    /// A handle nobody else has.
    pub fn new() -> Self {
        let mut bytes = [0; 20];
        let uuid = fastrand::u128(..).to_le_bytes();
        for (byte, value) in bytes.iter_mut().skip(4).zip(uuid) {
            *byte = value;
        }
        Self(bytes)
    }
}

/// Writes arguments, each at a multiple of its size.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u16(&mut self, number: u16) {
        self.align(2);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn handle(&mut self, handle: &Handle) {
        self.align(4);
        self.0.extend_from_slice(&handle.0);
    }

    /// A conformant array: its size, then itself.
    fn array(&mut self, bytes: &[u8]) {
        self.u32(length(bytes));
        self.0.extend_from_slice(bytes);
    }

    /// A conformant and varying array, as strings are too: size, offset, size again, then itself.
    fn varying(&mut self, bytes: &[u8]) {
        self.u32(length(bytes));
        self.u32(0);
        self.u32(length(bytes));
        self.0.extend_from_slice(bytes);
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Reads arguments, each at a multiple of its size.
#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize, name: &'static str) -> Result<&'a [u8], BadStub> {
        let end = self.at.checked_add(count).ok_or(BadStub(name))?;
        let taken = self.bytes.get(self.at..end).ok_or(BadStub(name))?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self, name: &'static str) -> Result<[u8; N], BadStub> {
        self.at = self.at.next_multiple_of(N);
        let taken = self.take(N, name)?;
        taken.try_into().map_err(|_impossible| BadStub(name))
    }

    fn u32(&mut self, name: &'static str) -> Result<u32, BadStub> {
        Ok(u32::from_le_bytes(self.number(name)?))
    }

    fn handle(&mut self, name: &'static str) -> Result<Handle, BadStub> {
        self.at = self.at.next_multiple_of(4);
        let taken = self.take(20, name)?;
        let bytes = taken.try_into().map_err(|_impossible| BadStub(name))?;
        Ok(Handle(bytes))
    }

    fn array(&mut self, name: &'static str) -> Result<&'a [u8], BadStub> {
        let count = self.u32(name)?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX), name)
    }

    fn varying(&mut self, name: &'static str) -> Result<&'a [u8], BadStub> {
        let (_size, _offset) = (self.u32(name)?, self.u32(name)?);
        self.array(name)
    }
}

/// Arguments of [`CONNECT_EX`], with those of a MAPI over HTTP Connect.
pub fn connect_request(request: &ConnectRequest) -> Vec<u8> {
    let mut to = Writer::default();
    let mut dn = request.user_dn.clone();
    dn.push(0);
    to.varying(&dn);
    to.u32(request.flags);
    to.u32(0); // ulConMod
    to.u32(0); // cbLimit
    to.u32(request.code_page);
    to.u32(request.lcid_string);
    to.u32(request.lcid_sort);
    to.u32(u32::MAX); // ulIcxrLink: no session to join
    to.u16(1); // usFCanConvertCodePages
    CLIENT_VERSION.into_iter().for_each(|part| to.u16(part));
    to.u32(0); // pulTimeStamp
    to.array(&request.auxiliary);
    to.u32(length(&request.auxiliary));
    to.u32(AUXILIARY_MAX);
    to.0
}

/// The distinguished name in the arguments of [`CONNECT_EX`], without its terminating zero.
///
/// # Errors
/// They end inside it.
pub fn read_connect_request(stub: &[u8]) -> Result<Vec<u8>, BadStub> {
    let dn = Reader::new(stub).varying("szUserDN")?;
    Ok(dn.strip_suffix(&[0]).unwrap_or(dn).to_vec())
}

/// Results of [`CONNECT_EX`].
pub fn connect_answer(handle: &Handle, display_name: &str, auxiliary: &[u8], code: u32) -> Vec<u8> {
    let mut to = Writer::default();
    to.handle(handle);
    to.u32(60_000); // pcmsPollsMax
    to.u32(6); // pcRetry
    to.u32(10_000); // pcmsRetryDelay
    to.u16(0); // picxr
    for (number, text) in [(1, ""), (2, display_name)] {
        to.u32(0x0002_0000 + number * 4); // a pointer's referent
        let mut text = text.as_bytes().to_vec();
        text.push(0);
        to.varying(&text);
    }
    SERVER_VERSION.into_iter().for_each(|part| to.u16(part));
    CLIENT_VERSION.into_iter().for_each(|part| to.u16(part));
    to.u32(0); // pulTimeStamp
    to.varying(auxiliary);
    to.u32(length(auxiliary));
    to.u32(code);
    to.0
}

/// The handle in the results of [`CONNECT_EX`], [`DISCONNECT`] and [`ASYNC_CONNECT_EX`], and the code at their end.
///
/// # Errors
/// They are shorter than both.
pub fn read_handle_answer(stub: &[u8]) -> Result<(Handle, u32), BadStub> {
    let handle = Reader::new(stub).handle("pcxh")?;
    let code = stub.last_chunk().ok_or(BadStub("the code"))?;
    Ok((handle, u32::from_le_bytes(*code)))
}

/// Arguments of [`RPC_EXT2`], with those of a MAPI over HTTP Execute.
pub fn execute_request(handle: &Handle, request: &ExecuteRequest) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(request.rop_buffer.len() + 64));
    to.handle(handle);
    to.u32(request.flags);
    to.array(&request.rop_buffer);
    to.u32(length(&request.rop_buffer));
    to.u32(request.max_rop_out);
    to.array(&request.auxiliary);
    to.u32(length(&request.auxiliary));
    to.u32(AUXILIARY_MAX);
    to.0
}

/// Reads the arguments of [`RPC_EXT2`].
///
/// # Errors
/// They end inside one.
pub fn read_execute_request(stub: &[u8]) -> Result<(Handle, ExecuteRequest), BadStub> {
    let mut from = Reader::new(stub);
    let handle = from.handle("pcxh")?;
    let flags = from.u32("pulFlags")?;
    let rop_buffer = from.array("rgbIn")?.to_vec();
    let _size = from.u32("cbIn")?;
    let max_rop_out = from.u32("pcbOut")?;
    let auxiliary = from.array("rgbAuxIn")?.to_vec();
    let request = ExecuteRequest {
        flags,
        rop_buffer,
        max_rop_out,
        auxiliary,
    };
    Ok((handle, request))
}

/// Results of [`RPC_EXT2`].
pub fn execute_answer(handle: &Handle, answer: &ExecuteSuccess) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(answer.rop_buffer.len() + 96));
    to.handle(handle);
    to.u32(answer.flags);
    to.varying(&answer.rop_buffer);
    to.u32(length(&answer.rop_buffer));
    to.varying(&answer.auxiliary);
    to.u32(length(&answer.auxiliary));
    to.u32(0); // pulTransTime
    to.u32(answer.error_code);
    to.0
}

/// Reads the results of [`RPC_EXT2`].
///
/// # Errors
/// They end inside one.
pub fn read_execute_answer(stub: &[u8]) -> Result<ExecuteSuccess, BadStub> {
    let mut from = Reader::new(stub);
    let _handle = from.handle("pcxh")?;
    let flags = from.u32("pulFlags")?;
    let rop_buffer = from.varying("rgbOut")?.to_vec();
    let _size = from.u32("pcbOut")?;
    let auxiliary = from.varying("rgbAuxOut")?.to_vec();
    let (_size, _time) = (from.u32("pcbAuxOut")?, from.u32("pulTransTime")?);
    Ok(ExecuteSuccess {
        error_code: from.u32("the code")?,
        flags,
        rop_buffer,
        auxiliary,
    })
}

/// Arguments of [`DISCONNECT`] and [`ASYNC_CONNECT_EX`].
pub fn handle_request(handle: &Handle) -> Vec<u8> {
    handle.0.to_vec()
}

/// Arguments of [`ASYNC_WAIT_EX`].
pub fn wait_request(handle: &Handle) -> Vec<u8> {
    let mut to = Writer::default();
    to.handle(handle);
    to.u32(0); // ulFlagsIn
    to.0
}

/// The handle in arguments that begin with one.
///
/// # Errors
/// They are shorter.
pub fn read_handle(stub: &[u8]) -> Result<Handle, BadStub> {
    Reader::new(stub).handle("a handle")
}

/// Results of [`DISCONNECT`] and [`ASYNC_CONNECT_EX`].
pub fn handle_answer(handle: &Handle, code: u32) -> Vec<u8> {
    let mut to = Writer::default();
    to.handle(handle);
    to.u32(code);
    to.0
}

/// Results of [`ASYNC_WAIT_EX`].
pub fn wait_answer(is_event: bool) -> Vec<u8> {
    let mut to = Writer::default();
    to.u32(u32::from(is_event));
    to.u32(0);
    to.0
}

/// Whether there is an event, by the results of [`ASYNC_WAIT_EX`].
///
/// # Errors
/// They are shorter.
pub fn read_wait_answer(stub: &[u8]) -> Result<bool, BadStub> {
    Ok(Reader::new(stub).u32("pulFlagsOut")? & 1 != 0)
}

/// Room for auxiliary data, in bytes. `[MS-OXCRPC] 3.1.4.2`
const AUXILIARY_MAX: u32 = 0x1008;
/// Outlook 2013, in the three parts of `[MS-OXCRPC] 3.1.4.1.3`.
const CLIENT_VERSION: [u16; 3] = [15, 0x8000 | 4569, 1000];
/// Exchange 2013.
const SERVER_VERSION: [u16; 3] = [15, 0x8000 | 847, 32];

/// Reads an `NspiBind`; whether it asks for the server's GUID. `[MS-OXNSPI] 3.1.4.1.1`
///
/// # Errors
/// The stub data end too early.
pub fn read_nspi_bind(stub: &[u8]) -> Result<bool, BadStub> {
    let guid = stub.get(4 + STAT_BYTES..).ok_or(BadStub("pStat"))?;
    let referent = guid.first_chunk::<4>().ok_or(BadStub("pServerGuid"))?;
    Ok(*referent != [0; 4])
}

/// The answer to an `NspiBind`, with the server's GUID where it was asked for.
pub fn nspi_bind_answer(server: Option<[u8; 16]>, handle: &Handle) -> Vec<u8> {
    let mut to = Writer::default();
    to.u32(if server.is_some() { 0x0002_0000 } else { 0 });
    if let Some(guid) = server {
        to.0.extend_from_slice(&guid);
    }
    to.handle(handle);
    to.u32(0);
    to.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(rop_buffer: Vec<u8>) -> ExecuteRequest {
        ExecuteRequest {
            auxiliary: vec![1; 5],
            ..ExecuteRequest::of(rop_buffer)
        }
    }

    #[test]
    fn an_execute_request_is_laid_out_as_ndr_says() {
        let handle = Handle([7; 20]);

        let stub = execute_request(&handle, &ExecuteRequest::of(vec![9; 5]));

        // Handle 20, flags 4, size 4, five bytes and three to the next multiple of four, cbIn 4, pcbOut 4,
        // an empty array 4, cbAuxIn 4, pcbAuxOut 4.
        assert_eq!(stub.len(), 20 + 4 + 4 + 5 + 3 + 4 + 4 + 4 + 4 + 4);
        assert_eq!(stub[24..28], 5u32.to_le_bytes());
        assert_eq!(stub[36..40], 5u32.to_le_bytes());
    }

    #[test]
    fn an_execute_answer_spends_sixty_four_bytes_on_its_fields() {
        let answer = ExecuteSuccess {
            error_code: 0,
            flags: 0,
            rop_buffer: vec![9; 32],
            auxiliary: Vec::new(),
        };

        let stub = execute_answer(&Handle([7; 20]), &answer);

        // Handle 20, flags 4, three sizes 12, pcbOut 4, three sizes 12, pcbAuxOut 4, pulTransTime 4, code 4.
        assert_eq!(stub.len() - 32, 20 + 4 + 12 + 4 + 12 + 4 + 4 + 4);
    }

    #[test]
    fn a_session_opens_with_the_arguments_of_a_connect() {
        let request = ConnectRequest::of("/o=Contoso/cn=user1");

        let stub = connect_request(&request);

        assert_eq!(read_connect_request(&stub).unwrap(), request.user_dn);
        let (handle, code) = (Handle([3; 20]), 0x8007_0005);
        let answer = connect_answer(&handle, "user1", &[1, 2, 3], code);
        assert_eq!(read_handle_answer(&answer), Ok((handle, code)));
        // Beginning with handle, times and picxr: 20 + 12 + 2, and two to the next multiple of four.
        assert_eq!(answer[36..40], 0x0002_0004u32.to_le_bytes());
    }

    #[test]
    fn waits_say_whether_there_is_an_event() {
        assert_eq!(wait_request(&Handle::default()).len(), 24);
        assert_eq!(read_wait_answer(&wait_answer(true)), Ok(true));
        assert_eq!(read_wait_answer(&wait_answer(false)), Ok(false));
    }

    proptest! {
        #[test]
        fn what_was_written_reads_the_same(
            handle: [u8; 20],
            rops in proptest::collection::vec(any::<u8>(), 0..200),
            auxiliary in proptest::collection::vec(any::<u8>(), 0..9),
            code: u32,
        ) {
            let handle = Handle(handle);
            let asked = ExecuteRequest { auxiliary: auxiliary.clone(), ..request(rops.clone()) };
            let stub = execute_request(&handle, &asked);
            prop_assert_eq!(read_execute_request(&stub).unwrap(), (handle, asked));
            let answer = ExecuteSuccess { error_code: code, flags: 0, rop_buffer: rops, auxiliary };
            let stub = execute_answer(&handle, &answer);
            prop_assert_eq!(read_execute_answer(&stub).unwrap(), answer);
        }

        #[test]
        fn any_bytes_are_read_or_refused(stub in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = read_execute_request(&stub);
            let _ = read_execute_answer(&stub);
            let _ = read_connect_request(&stub);
            let _ = read_handle_answer(&stub);
            let _ = read_wait_answer(&stub);
        }
    }
}
