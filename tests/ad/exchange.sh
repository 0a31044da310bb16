#!/bin/bash
# Adds to the directory in FOLDER what mail adds to one: `exchange.sh FOLDER`, before the controller starts.
set -euo pipefail
LAB=$1
HERE=$(cd "$(dirname "$0")" && pwd)
SAM=$LAB/private/sam.ldb
BASE=DC=contoso,DC=test
ALLOWED='--option=dsdb:schema update allowed=true'
mkdir -p "$LAB/exchange"
cd "$LAB/exchange"
for part in attributes classes recipients tree users; do
  python3 "$HERE/exchange.py" $BASE $part >$part.ldif
done
# What was added to the schema is known from the next word on.
learn() { printf 'dn:\nchangetype: modify\nadd: schemaUpdateNow\nschemaUpdateNow: 1\n\n' | ldbmodify -H "$SAM" "$ALLOWED"; }
ldbadd -H "$SAM" "$ALLOWED" attributes.ldif
learn
# One after the other: each may speak of the ones before it.
rm -f class-*.ldif
awk -v RS= '{ print $0 "\n" > sprintf("class-%02d.ldif", NR) }' classes.ldif
for class in class-*.ldif; do
  ldbadd -H "$SAM" "$ALLOWED" "$class"
  learn
done
ldbmodify -H "$SAM" "$ALLOWED" recipients.ldif
learn
ldbadd -H "$SAM" tree.ldif
ldbmodify -H "$SAM" users.ldif
