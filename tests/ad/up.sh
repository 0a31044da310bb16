#!/bin/bash
# Brings up an Active Directory of its own on the loopback: a Samba domain controller with the users, services
# and certificates that tests/ad asks for. `up.sh FOLDER` keeps everything in FOLDER, comes back in seconds where
# the folder exists already, and is ended by `down.sh FOLDER`.
#
# Where a controller of the same realm runs on this machine already, it is adopted: FOLDER points to its files, and
# down.sh leaves it alone.
#
# Needs root: a domain controller has its ports below 1024 (53 88 135 139 389 445 464 636 3268 3269), and the names
# of the lab are written to /etc/hosts.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
LAB=$(cd "$1" && pwd)
HERE=$(cd "$(dirname "$0")" && pwd)
ADDRESS=127.0.0.1
REALM=CONTOSO.TEST
DOMAIN=contoso.test
NETBIOS=CONTOSO
PASSWORD='P@ssw0rd.1'
ADMIN_PASSWORD='Adm1n.P@ss'
CONF=$LAB/etc/smb.conf
SAM=$LAB/private/sam.ldb
export PATH=$PATH:/usr/sbin:/sbin

say() { echo "ad: $*"; }
fail() { echo "ad: $*" >&2; exit 1; }
# Runs a command whose words matter only where it fails.
quietly() { timeout 120 "$@" >>"$LAB/steps.log" 2>&1 || { tail -5 "$LAB/steps.log" >&2; fail "failed: $1 $2"; }; }
is_open() { (exec 3<>"/dev/tcp/$ADDRESS/$1") 2>/dev/null; }
is_samba() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q '\bsamba\b'; }

install_packages() {
  local missing=() program
  for program in samba samba-tool winbindd ntlm_auth kinit ldbmodify ldapsearch openssl curl; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ -d /usr/share/samba/setup ] || missing+=(the files of a new domain)
  ls /usr/lib/*/gssntlmssp/gssntlmssp.so >/dev/null 2>&1 || missing+=(gss-ntlmssp)
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing Samba and its tools (missing: ${missing[*]})"
  # No service of the distribution's own may start on the ports of the lab.
  local policy=/usr/sbin/policy-rc.d made=
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=1; }
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      samba samba-dsdb-modules samba-vfs-modules samba-ad-provision winbind krb5-user ldap-utils ldb-tools \
      gss-ntlmssp openssl curl attr acl >"$LAB/packages.log" 2>&1; } || { [ -z "$made" ] || rm -f $policy
    fail "the packages cannot be installed; see $LAB/packages.log"; }
  [ -z "$made" ] || rm -f $policy
}

# The folder of a controller of this realm that somebody else started. Samba writes over its own command line, so
# that it is known by the database it holds open.
find_running() {
  local pid folder
  for pid in $(pgrep -x samba || true); do
    folder=$(readlink "/proc/$pid"/fd/* 2>/dev/null | sed -n 's|/private/sam\.ldb\.d/.*||p' | head -1)
    if [ -n "$folder" ] && grep -qi "^[[:space:]]*realm = $REALM" "$folder/etc/smb.conf" 2>/dev/null; then
      echo "$folder"
      return
    fi
  done
}

adopt() {
  local other=$1 part
  for part in krb5.conf mail.keytab mbx.keytab tls etc private; do
    [ -e "$other/$part" ] || fail "the controller in $other has no $part and cannot be adopted"
    ln -sfn "$other/$part" "$LAB/$part"
  done
  echo "$other" >"$LAB/adopted"
  say "adopted the controller that runs in $other"
}

write_names() {
  local name
  for name in dc1 mail autodiscover mbx1 mbx2; do
    grep -qw "$name.$DOMAIN" /etc/hosts || echo "$ADDRESS $name.$DOMAIN" >>/etc/hosts
  done
}

write_krb5_conf() {
  # A name is taken as it is written, no DNS is asked, and TCP is used from the first word on.
  cat >"$LAB/krb5.conf" <<END
[libdefaults]
  default_realm = $REALM
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  forwardable = true
  udp_preference_limit = 1
[realms]
  $REALM = {
    kdc = $ADDRESS:88
    kpasswd_server = $ADDRESS:464
  }
[domain_realm]
  $DOMAIN = $REALM
  .$DOMAIN = $REALM
END
}

make_certificates() {
  [ -s "$LAB/tls/alice.pem" ] && return
  mkdir -p "$LAB/tls"
  cd "$LAB/tls"
  quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3650 \
    -subj "/CN=Contoso Lab CA" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  # name, common name, use, names
  certificate() {
    printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4" >"$1.ext"
    quietly openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$2"
    quietly openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -sha256 \
      -extfile "$1.ext" -out "$1.pem"
    chmod 600 "$1.key"
  }
  certificate dc1 "dc1.$DOMAIN" serverAuth "DNS:dc1.$DOMAIN,DNS:$DOMAIN,IP:$ADDRESS"
  certificate mail "mail.$DOMAIN" serverAuth "DNS:mail.$DOMAIN,DNS:autodiscover.$DOMAIN"
  # The logon name in the form that smart cards have: an otherName of Microsoft's arc.
  certificate alice alice clientAuth "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice@$DOMAIN,email:alice@$DOMAIN"
  cd - >/dev/null
}

provision() {
  [ -s "$SAM" ] && [ -e "$LAB/people" ] && return
  # What a run left that was ended in the middle is made anew.
  rm -rf "$LAB/private" "$LAB/state" "$LAB/etc" "$LAB"/*.keytab
  say "making the domain $REALM; this takes half a minute"
  quietly samba-tool domain provision --targetdir="$LAB" --realm=$REALM --domain=$NETBIOS --server-role=dc \
    --host-name=dc1 --host-ip=$ADDRESS --dns-backend=SAMBA_INTERNAL --use-rfc2307 --adminpass="$ADMIN_PASSWORD" \
    --option="interfaces=lo" --option="bind interfaces only=yes"
  local own
  own=$(cat <<END
	pid directory = $LAB/run
	interfaces = lo
	bind interfaces only = yes
	tls cafile = $LAB/tls/ca.pem
	tls certfile = $LAB/tls/dc1.pem
	tls keyfile = $LAB/tls/dc1.key
	server services = s3fs, rpc, ldap, cldap, kdc, winbindd, dns, nbt
	dns update command = /bin/true
	spn update command = /bin/true
	dsdb:schema update allowed = yes
	disable spoolss = yes
	load printers = no
	logging = file
	log file = $LAB/log.samba
	log level = 1
END
)
  # The name server that the machine asks is not this one's business.
  awk -v own="$own" '/^[[:space:]]*dns forwarder/ { next } { print } /^\[global\]/ { print own }' "$CONF" >"$CONF.new"
  mv "$CONF.new" "$CONF"
}

make_people() {
  [ -e "$LAB/people" ] && return
  tool() { quietly samba-tool "$@" --configfile="$CONF"; }
  tool domain passwordsettings set --complexity=off --min-pwd-age=0 --max-pwd-age=0 --history-length=0 \
    --account-lockout-threshold=5 --account-lockout-duration=1 --reset-account-lockout-after=1
  local user service
  for user in alice bob carol; do
    tool user create $user "$PASSWORD" --given-name=${user^} --surname=Test --mail-address=$user@$DOMAIN
  done
  # svc-mail is this front end: what it accepts, and what it may do at the mailbox servers in a user's name.
  tool user create svc-mail "$PASSWORD-svc-mail"
  tool user create svc-mbx "$PASSWORD-svc-mbx"
  tool user create svc-ldap "$PASSWORD-svc-ldap"
  tool spn add HTTP/mail.$DOMAIN svc-mail
  tool spn add HTTP/autodiscover.$DOMAIN svc-mail
  tool spn add HTTP/mbx1.$DOMAIN svc-mbx
  tool spn add HTTP/mbx2.$DOMAIN svc-mbx
  for service in svc-mail svc-mbx; do
    local dn
    dn=$(ldbsearch -H "$SAM" "(sAMAccountName=$service)" dn 2>/dev/null | sed -n 's/^dn: //p')
    # AES only; the keys are made when the password is set again.
    printf 'dn: %s\nchangetype: modify\nreplace: msDS-SupportedEncryptionTypes\nmsDS-SupportedEncryptionTypes: 24\n' \
      "$dn" >"$LAB/types.ldif"
    quietly ldbmodify -H "$SAM" "$LAB/types.ldif"
    tool user setpassword $service --newpassword="$PASSWORD-$service"
    tool user setexpiry $service --noexpiry
  done
  tool delegation add-service svc-mail HTTP/mbx1.$DOMAIN
  tool delegation add-service svc-mail HTTP/mbx2.$DOMAIN
  tool delegation for-any-protocol svc-mail on
  "$HERE/exchange.sh" "$LAB" >>"$LAB/steps.log" 2>&1 || fail "the mail objects cannot be made; see $LAB/steps.log"
  touch "$LAB/people"
}

make_keytabs() {
  [ -s "$LAB/mbx.keytab" ] && return
  rm -f "$LAB"/mail.keytab "$LAB"/mbx.keytab
  key() { quietly samba-tool domain exportkeytab "$1" --principal="$2" --configfile="$CONF"; }
  key "$LAB/mail.keytab" svc-mail
  key "$LAB/mail.keytab" HTTP/mail.$DOMAIN
  key "$LAB/mail.keytab" HTTP/autodiscover.$DOMAIN
  key "$LAB/mbx.keytab" HTTP/mbx1.$DOMAIN
  key "$LAB/mbx.keytab" HTTP/mbx2.$DOMAIN
  chmod 600 "$LAB"/*.keytab
}

is_answering() {
  is_open 88 && is_open 636 && wbinfo -p >/dev/null 2>&1 &&
    echo "$PASSWORD" | KRB5_CONFIG=$LAB/krb5.conf kinit -c "FILE:$LAB/first.cc" "alice@$REALM" >/dev/null 2>&1
}

# Starts the controller: 0 up, 1 ended by itself, 2 silent.
start() {
  mkdir -p "$LAB/run" /run/samba /var/lib/samba/winbindd_privileged
  setsid samba -F --no-process-group -s "$CONF" -M prefork </dev/null >"$LAB/samba.out" 2>&1 &
  local pid=$! tries
  echo "$pid" >"$LAB/samba.pid"
  for tries in $(seq 300); do
    kill -0 "$pid" 2>/dev/null || return 1
    if is_answering; then
      say "up, pid $pid, in $LAB"
      return 0
    fi
    sleep 0.2
  done
  "$HERE/down.sh" "$LAB"
  return 2
}

# What the controller said last, for who has no shell on this machine.
last_words() { tail -n 30 "$LAB/samba.out" "$LAB/log.samba" >&2 || true; }

[ "$(id -u)" = 0 ] || fail "root is needed: a domain controller has its ports below 1024"
install_packages
if [ -s "$LAB/samba.pid" ] && is_samba "$(cat "$LAB/samba.pid")"; then
  say "runs already, pid $(cat "$LAB/samba.pid")"
  exit 0
fi
rm -f "$LAB/samba.pid"
write_names
running=$(find_running)
if [ -n "$running" ]; then
  adopt "$running"
  exit 0
fi
if [ -e "$LAB/adopted" ]; then
  # Whose files these links were has gone; what comes now is our own.
  find "$LAB" -maxdepth 1 -type l -delete
  rm -f "$LAB/adopted"
fi
for port in 53 88 389 445 636; do
  ! is_open $port || fail "port $port is taken on $ADDRESS, and not by a controller of $REALM"
done
write_krb5_conf
export KRB5_CONFIG=$LAB/krb5.conf
make_certificates
provision
make_people
make_keytabs
for attempt in 1 2 3; do
  ! start || exit 0
  say "attempt $attempt: samba ended or does not answer"
  sleep 1
done
last_words
fail "samba cannot be started; what it said last stands above, all of it in $LAB/log.samba"
