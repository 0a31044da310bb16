//! Bodies of the address book endpoint. `[MS-OXCMAPIHTTP] 2.2.5`

use super::fields::{Reader, Wide, put_buffer, put_count, put_flag, put_u32, put_wide};
use super::{Body, BodyError};

/// Where a client stands in a table of the address book. `[MS-OXNSPI] 2.2.8`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// How rows are sorted.
    pub sort_type: u32,
    /// The container.
    pub container_id: u32,
    /// The current row.
    pub current_rec: u32,
    /// Rows to go from it; two's complement.
    pub delta: u32,
    /// Approximate position.
    pub num_pos: u32,
    /// Approximate number of rows.
    pub total_recs: u32,
    /// Code page of strings.
    pub code_page: u32,
    /// Locale of templates.
    pub template_locale: u32,
    /// Locale that sorts.
    pub sort_locale: u32,
}

impl Stat {
    /// Where a client starts.
    pub fn start() -> Self {
        Self {
            code_page: 1252,
            template_locale: 0x409,
            sort_locale: 0x409,
            ..Self::default()
        }
    }
}

impl Body for Stat {
    fn write(&self, to: &mut Vec<u8>) {
        for number in [
            self.sort_type,
            self.container_id,
            self.current_rec,
            self.delta,
            self.num_pos,
            self.total_recs,
            self.code_page,
            self.template_locale,
            self.sort_locale,
        ] {
            put_u32(to, number);
        }
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            sort_type: from.u32("SortType")?,
            container_id: from.u32("ContainerID")?,
            current_rec: from.u32("CurrentRec")?,
            delta: from.u32("Delta")?,
            num_pos: from.u32("NumPos")?,
            total_recs: from.u32("TotalRecs")?,
            code_page: from.u32("CodePage")?,
            template_locale: from.u32("TemplateLocale")?,
            sort_locale: from.u32("SortLocale")?,
        })
    }
}

/// Opens a session context. `[MS-OXCMAPIHTTP] 2.2.5.1.1`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindRequest {
    /// Anonymous or not.
    pub flags: u32,
    /// Where the client starts.
    pub state: Option<Stat>,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for BindRequest {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.flags);
        put_optional(to, self.state.as_ref());
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            flags: from.u32("Flags")?,
            state: optional(from, "HasState")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// A session context was opened. `[MS-OXCMAPIHTTP] 2.2.5.1.2`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// The server's address book.
    pub server_guid: [u8; 16],
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for BindSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.error_code);
        to.extend_from_slice(&self.server_guid);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            server_guid: from.guid("ServerGuid")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// Ends a session context. `[MS-OXCMAPIHTTP] 2.2.5.2.1`
pub type UnbindRequest = super::Plain;

/// A list of property tags. `[MS-OXCMAPIHTTP] 2.2.1.8`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyTags(pub Vec<u32>);

impl PropertyTags {
    /// Tags a list may hold.
    pub const MAX: u32 = 100_000;
}

impl Body for PropertyTags {
    fn write(&self, to: &mut Vec<u8>) {
        put_numbers(to, &self.0);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self(numbers(from, "PropertyTags")?))
    }
}

/// Asks for rows of a table. `[MS-OXCMAPIHTTP] 2.2.5.12.1`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRowsRequest {
    /// How rows are to be returned.
    pub flags: u32,
    /// Where the client stands.
    pub state: Option<Stat>,
    /// Rows asked for by number.
    pub explicit_table: Vec<u32>,
    /// Rows wanted at most.
    pub row_count: u32,
    /// Columns wanted.
    pub columns: Option<PropertyTags>,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for QueryRowsRequest {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.flags);
        put_optional(to, self.state.as_ref());
        put_numbers(to, &self.explicit_table);
        put_u32(to, self.row_count);
        put_optional(to, self.columns.as_ref());
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            flags: from.u32("Flags")?,
            state: optional(from, "HasState")?,
            explicit_table: numbers(from, "ExplicitTable")?,
            row_count: from.u32("RowCount")?,
            columns: optional(from, "HasColumns")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// Rows whose every value is text: the answers of the lab ask for no other columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextRows {
    /// Tags of the columns.
    pub columns: PropertyTags,
    /// One value per column and row; a value a row does not have is `None`.
    pub rows: Vec<Vec<Option<Wide>>>,
}

impl Body for TextRows {
    fn write(&self, to: &mut Vec<u8>) {
        self.columns.write(to);
        put_count(to, self.rows.len());
        for row in &self.rows {
            to.push(0); // every value is present and of its column's type
            for value in row {
                put_flag(to, value.is_some());
                if let Some(text) = value {
                    put_wide(to, text);
                }
            }
        }
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        let columns = PropertyTags::read_fields(from)?;
        let count = from.u32("RowCount")?;
        let mut rows = Vec::new();
        for _ in 0..count {
            if from.u8("Flag")? != 0 {
                return Err(BodyError::Impossible("Flag"));
            }
            let mut row = Vec::new();
            for _ in &columns.0 {
                row.push(match from.flag("HasValue")? {
                    true => Some(from.wide("PropertyValue")?),
                    false => None,
                });
            }
            rows.push(row);
        }
        Ok(Self { columns, rows })
    }
}

/// Rows of a table. `[MS-OXCMAPIHTTP] 2.2.5.12.2`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRowsSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// Where the client stands now.
    pub state: Option<Stat>,
    /// The rows.
    pub rows: Option<TextRows>,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for QueryRowsSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.error_code);
        put_optional(to, self.state.as_ref());
        put_optional(to, self.rows.as_ref());
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            state: optional(from, "HasState")?,
            rows: optional(from, "HasColumnsAndRows")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// A list of names. `[MS-OXCMAPIHTTP] 2.2.1.5`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub Vec<Wide>);

impl Body for Names {
    fn write(&self, to: &mut Vec<u8>) {
        put_count(to, self.0.len());
        for name in &self.0 {
            put_wide(to, name);
        }
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        let count = from.u32("NameCount")?;
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(from.wide("Name")?);
        }
        Ok(Self(names))
    }
}

/// Asks who is meant. `[MS-OXCMAPIHTTP] 2.2.5.13.1`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolveNamesRequest {
    /// Reserved, 0.
    pub reserved: u32,
    /// Where the client stands.
    pub state: Option<Stat>,
    /// Columns wanted.
    pub columns: Option<PropertyTags>,
    /// The names.
    pub names: Option<Names>,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for ResolveNamesRequest {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.reserved);
        put_optional(to, self.state.as_ref());
        put_optional(to, self.columns.as_ref());
        put_optional(to, self.names.as_ref());
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            reserved: from.u32("Reserved")?,
            state: optional(from, "HasState")?,
            columns: optional(from, "HasPropertyTags")?,
            names: optional(from, "HasNames")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// Who is meant. `[MS-OXCMAPIHTTP] 2.2.5.13.2`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolveNamesSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// Code page of strings.
    pub code_page: u32,
    /// One number per name: 0 unresolved, 1 ambiguous, 2 resolved.
    pub minimal_ids: Option<PropertyTags>,
    /// The resolved ones.
    pub rows: Option<TextRows>,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for ResolveNamesSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.error_code);
        put_u32(to, self.code_page);
        put_optional(to, self.minimal_ids.as_ref());
        put_optional(to, self.rows.as_ref());
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            code_page: from.u32("CodePage")?,
            minimal_ids: optional(from, "HasMinimalIds")?,
            rows: optional(from, "HasRowsAndColumns")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// `GetMailboxUrl` (of a server) and `GetAddressBookUrl` (of a user). `[MS-OXCMAPIHTTP] 2.2.5.18, 2.2.5.19`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlRequest {
    /// Reserved, 0.
    pub flags: u32,
    /// The distinguished name asked about.
    pub dn: Wide,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for UrlRequest {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.flags);
        put_wide(to, &self.dn);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            flags: from.u32("Flags")?,
            dn: from.wide("Dn")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// The answer to [`UrlRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// An absolute URL.
    pub url: Wide,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for UrlSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.error_code);
        put_wide(to, &self.url);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            url: from.wide("Url")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

fn put_optional<T: Body>(to: &mut Vec<u8>, part: Option<&T>) {
    put_flag(to, part.is_some());
    if let Some(part) = part {
        part.write(to);
    }
}

fn optional<T: Body>(from: &mut Reader<'_>, field: &'static str) -> Result<Option<T>, BodyError> {
    match from.flag(field)? {
        true => Ok(Some(T::read_fields(from)?)),
        false => Ok(None),
    }
}

fn put_numbers(to: &mut Vec<u8>, numbers: &[u32]) {
    put_count(to, numbers.len());
    for number in numbers {
        put_u32(to, *number);
    }
}

fn numbers(from: &mut Reader<'_>, field: &'static str) -> Result<Vec<u32>, BodyError> {
    let count = from.u32(field)?;
    if count > PropertyTags::MAX {
        return Err(BodyError::Impossible(field));
    }
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(from.u32(field)?);
    }
    Ok(numbers)
}
