#!/bin/bash
# Succeeds where `up.sh` can bring up a controller here; else prints why it cannot.
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || { echo "it needs root"; exit 1; }
for program in samba samba-tool winbindd ntlm_auth kinit ldbmodify; do
  if ! command -v "$program" >/dev/null; then
    apt-get install --simulate -qq --no-install-recommends samba winbind krb5-user gss-ntlmssp >/dev/null 2>&1 && break
    echo "$program is missing, and its package cannot be installed"
    exit 1
  fi
done
if ! pgrep -x samba >/dev/null; then
  for port in 53 88 389 445 636; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "port $port is taken"
      exit 1
    fi
  done
fi
