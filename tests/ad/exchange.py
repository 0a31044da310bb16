#!/usr/bin/env python3
"""LDIF of what mail adds to a directory: `exchange.py BASE_DN PART`.

Attribute names, syntaxes and the shape of the tree are those of Exchange, so that whoever reads the directory reads it
as in a real site. Object identifiers below LAB are of the lab alone; readers over LDAP never see them.
"""
import base64
import sys
import uuid

LAB = "1.3.6.1.4.1.99999.77."
GROUP = "Exchange Administrative Group (FYDIBOHF23SPDLT)"
LEGACY = "/o=Contoso/ou=" + GROUP
BASE = sys.argv[1]
DOMAIN = ".".join(part[3:] for part in BASE.lower().split(","))
CONFIGURATION = "CN=Configuration," + BASE
SCHEMA = "CN=Schema," + CONFIGURATION
ORGANIZATION = "CN=Contoso,CN=Microsoft Exchange,CN=Services," + CONFIGURATION
ADMINISTRATIVE = f"CN={GROUP},CN=Administrative Groups,{ORGANIZATION}"

# Syntaxes: attributeSyntax and oMSyntax. [MS-ADTS] 3.1.1.2.2.2
BYTES, TEXT, NUMBER, LARGE = ("2.5.5.10", 4), ("2.5.5.12", 64), ("2.5.5.9", 2), ("2.5.5.16", 65)
NAME = ("2.5.5.1", 127)

# name, object identifier, syntax, link: forward links are even, their back links one more.
ATTRIBUTES = [
    ("msExchMailboxGuid", "1.2.840.113556.1.4.7000.102.11058", BYTES, None),
    ("msExchArchiveGUID", LAB + "1", BYTES, None),
    ("homeMDB", "1.2.840.113556.1.2.244", NAME, 32),
    ("homeMDBBL", "1.2.840.113556.1.2.393", NAME, 33),
    ("msExchHomeServerName", "1.2.840.113556.1.4.7000.102.47", TEXT, None),
    ("msExchRecipientTypeDetails", "1.2.840.113556.1.4.7000.102.50855", LARGE, None),
    ("msExchRecipientDisplayType", "1.2.840.113556.1.4.7000.102.50730", NUMBER, None),
    ("msExchOwningServer", "1.2.840.113556.1.4.7000.102.11004", NAME, None),
    ("msExchMasterServerOrAvailabilityGroup", LAB + "2", NAME, None),
    ("msExchHostServerLink", LAB + "3", NAME, None),
    ("msExchActivationPreference", LAB + "4", NUMBER, None),
    ("msExchMDBAvailabilityGroupLink", LAB + "5", NAME, None),
    ("msExchCurrentServerRoles", LAB + "6", NUMBER, None),
    ("mailNickname", "1.2.840.113556.1.2.447", TEXT, None),
]
CONTAINERS = ["container", "msExchConfigurationContainer"]
# name, object identifier, class above, what it may stand in beside containers, what it may have.
CLASSES = [
    ("msExchExchangeServer", LAB + "102", "top", [],
     ["networkAddress", "msExchCurrentServerRoles", "msExchMDBAvailabilityGroupLink", "legacyExchangeDN"]),
    ("msExchMDB", "1.2.840.113556.1.5.7000.62.11002", "top", [],
     ["msExchOwningServer", "msExchMasterServerOrAvailabilityGroup", "legacyExchangeDN", "homeMDBBL"]),
    ("msExchPrivateMDB", "1.2.840.113556.1.5.7000.62.11004", "msExchMDB", [], []),
    ("msExchMDBCopy", LAB + "103", "top", ["msExchMDB"], ["msExchHostServerLink", "msExchActivationPreference"]),
    ("msExchMDBAvailabilityGroup", LAB + "104", "top", [], []),
]
OF_RECIPIENTS = ["msExchMailboxGuid", "msExchArchiveGUID", "homeMDB", "msExchHomeServerName",
                 "msExchRecipientTypeDetails", "msExchRecipientDisplayType", "mailNickname"]
# Database, server of its active copy, server of the other.
DATABASES = [("DB01", "MBX1", "MBX2"), ("DB02", "MBX2", "MBX1")]
USERS = [("alice", "DB01", "MBX1"), ("bob", "DB02", "MBX2"), ("carol", "DB01", "MBX1")]


def guid(name):
    """The same for the same name, in the byte order of the directory."""
    return base64.b64encode(uuid.uuid5(uuid.NAMESPACE_DNS, name).bytes_le).decode()


def entry(dn, *lines):
    print("dn: " + dn)
    for line in lines:
        print(line)
    print()


def attributes():
    for name, oid, (syntax, om), link in ATTRIBUTES:
        lines = ["objectClass: attributeSchema", f"cn: {name}", f"lDAPDisplayName: {name}", f"attributeID: {oid}",
                 f"attributeSyntax: {syntax}", f"oMSyntax: {om}", f"schemaIDGUID:: {guid('attribute.' + name)}",
                 f"isSingleValued: {'FALSE' if name == 'homeMDBBL' else 'TRUE'}",
                 f"searchFlags: {1 if name == 'msExchMailboxGuid' else 0}"]
        if om == 127:
            lines.append("oMObjectClass:: KwwCh3McAIVK")
        if link:
            lines.append(f"linkID: {link}")
        entry(f"CN={name},{SCHEMA}", *lines)


def classes():
    for name, oid, above, places, may in CLASSES:
        # Without a descriptor of its own, what is of a new class is shown to nobody who reads over LDAP.
        entry(f"CN={name},{SCHEMA}", "objectClass: classSchema", f"cn: {name}", f"lDAPDisplayName: {name}",
              f"governsID: {oid}", f"subClassOf: {above}", "objectClassCategory: 1", "rDNAttID: cn",
              f"schemaIDGUID:: {guid('class.' + name)}",
              "defaultSecurityDescriptor: D:(A;;RPLCLORC;;;AU)(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;DA)"
              "(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;SY)",
              *(f"possSuperiors: {place}" for place in CONTAINERS + places),
              *(f"mayContain: {one}" for one in may),
              f"defaultObjectCategory: CN={name},{SCHEMA}")


def recipients():
    entry(f"CN=Mail-Recipient,{SCHEMA}", "changetype: modify", "add: mayContain",
          *(f"mayContain: {one}" for one in OF_RECIPIENTS))


def tree():
    for dn in [f"CN=Microsoft Exchange,CN=Services,{CONFIGURATION}", ORGANIZATION,
               f"CN=Administrative Groups,{ORGANIZATION}", ADMINISTRATIVE, f"CN=Servers,{ADMINISTRATIVE}",
               f"CN=Databases,{ADMINISTRATIVE}", f"CN=Database Availability Groups,{ADMINISTRATIVE}"]:
        entry(dn, "objectClass: msExchConfigurationContainer")
    group = f"CN=DAG1,CN=Database Availability Groups,{ADMINISTRATIVE}"
    entry(group, "objectClass: msExchMDBAvailabilityGroup")
    for server in ["MBX1", "MBX2"]:
        entry(f"CN={server},CN=Servers,{ADMINISTRATIVE}", "objectClass: msExchExchangeServer",
              f"networkAddress: ncacn_ip_tcp:{server.lower()}.{DOMAIN}", f"networkAddress: netbios:{server}",
              "msExchCurrentServerRoles: 16439", f"msExchMDBAvailabilityGroupLink: {group}",
              f"legacyExchangeDN: {LEGACY}/cn=Configuration/cn=Servers/cn={server}")
    for database, active, other in DATABASES:
        dn = f"CN={database},CN=Databases,{ADMINISTRATIVE}"
        entry(dn, "objectClass: msExchPrivateMDB", f"msExchOwningServer: CN={active},CN=Servers,{ADMINISTRATIVE}",
              f"msExchMasterServerOrAvailabilityGroup: {group}",
              f"legacyExchangeDN: {LEGACY}/cn=Configuration/cn=Servers/cn={active}/cn=Microsoft Private MDB")
        for preference, server in enumerate([active, other], start=1):
            entry(f"CN={server},{dn}", "objectClass: msExchMDBCopy", f"msExchActivationPreference: {preference}",
                  f"msExchHostServerLink: CN={server},CN=Servers,{ADMINISTRATIVE}")


def users():
    for user, database, server in USERS:
        values = [
            ("homeMDB", [f": CN={database},CN=Databases,{ADMINISTRATIVE}"]),
            ("msExchHomeServerName", [f": {LEGACY}/cn=Configuration/cn=Servers/cn={server}"]),
            ("msExchMailboxGuid", [":: " + guid("mbx." + user)]),
            ("msExchRecipientTypeDetails", [": 1"]),
            ("mailNickname", [": " + user]),
            ("legacyExchangeDN", [f": {LEGACY}/cn=Recipients/cn={user}"]),
            ("proxyAddresses", [f": SMTP:{user}@{DOMAIN}", f": smtp:{user}.test@{DOMAIN}",
                                f": x500:{LEGACY}/cn=Recipients/cn=old-{user}"]),
        ]
        lines = ["changetype: modify"]
        for name, all_of_it in values:
            lines += [f"replace: {name}", *(name + value for value in all_of_it), "-"]
        entry(f"CN={user.capitalize()} Test,CN=Users,{BASE}", *lines)


{"attributes": attributes, "classes": classes, "recipients": recipients, "tree": tree, "users": users}[sys.argv[2]]()
