#!/bin/sh
# Forms the cluster and keeps it together. POSIX sh, and only what the public redis and valkey images carry.
#
#   cluster.sh form REPLICAS NODE:PORT...   join the nodes into one cluster; safe to run again at any time
#   cluster.sh health SELF:PORT NODE:PORT...  is SELF alive; and if it came back with a new address, tell its peers
#   cluster.sh serve [PORT]                 the server itself, with the password of compose.password.yaml, and with the
#                                           certificates of compose.tls.yaml on this port
#
# Nodes are named by service name: container addresses change, names do not. Redis itself wants addresses in
# CLUSTER MEET, so names are resolved here. (A tool that prints 172.18.0.2/16 would need its suffix cut off;
# getent prints none.)
set -u

# With compose.password.yaml the password is a docker secret.
[ -r /run/secrets/redis_password ] && REDISCLI_AUTH=$(cat /run/secrets/redis_password) && export REDISCLI_AUTH

# With compose.tls.yaml nodes speak TLS alone.
tls=
secrets=/run/secrets/tls
[ -r $secrets/ca.crt ] && tls="--tls --cacert $secrets/ca.crt --cert $secrets/node.crt --key $secrets/node.key"

host() { echo "${1%:*}"; }
port() { echo "${1##*:}"; }
address() { getent hosts "$(host "$1")" | { read -r first _; echo "${first:-}"; }; }

# ask NODE:PORT COMMAND...: one command to one node, empty when it does not answer.
ask() {
    node=$1
    shift
    # shellcheck disable=SC2086 # flags, or nothing
    timeout 2 redis-cli $tls -h "$(host "$node")" -p "$(port "$node")" "$@" 2>/dev/null | tr -d '\r'
}

info() { ask "$1" cluster info | sed -n "s/^$2://p"; }
slots_of() { ask "$1" cluster nodes | awk '/myself/ { print NF - 8 }'; }
say() { echo "cluster: $*"; }

# introduce SELF PEER: make PEER greet SELF, unless both already see SELF where it is now.
# CLUSTER MEET is the only message from which a node learns its own new address, so it is the peer that must greet.
introduce() {
    here=$(address "$1")
    id=$(ask "$1" cluster myid)
    [ -n "$here" ] && [ -n "$id" ] || return 0
    now="$id $here:$(port "$1")@"
    { ask "$1" cluster nodes; ask "$2" cluster nodes; } | {
        seen=0
        while read -r line; do
            case $line in *noaddr* | *fail*) ;; "$now"*) seen=$((seen + 1)) ;; esac
        done
        [ "$seen" -ge 2 ]
    } && return 0
    [ "$(ask "$2" cluster meet "$here" "$(port "$1")")" = OK ] && say "$2 greets $1 at $here:$(port "$1")"
    return 0
}

health() {
    self=$1
    shift
    [ "$(ask "$self" ping)" = PONG ] || { say "$self does not answer"; exit 1; }
    # A node that knows nobody waits for form; greeting it here would stop `--cluster create`.
    [ "$(info "$self" cluster_known_nodes)" -gt 1 ] || exit 0
    for peer in "$@"; do
        [ "$peer" = "$self" ] || introduce "$self" "$peer"
    done
    exit 0
}

refuse() {
    say "nothing is done: $*"
    say "this script forms a cluster of these nodes alone, and touches no other"
    exit 1
}

# servers NODE: the addresses that go by its name here; two containers of one name on a network share it.
servers() { getent ahosts "$(host "$1")" | awk '$1 ~ /[.]/ { print $1 }' | sort -u; }

members() { ask "$1" cluster nodes | awk '$3 !~ /noaddr|fail|handshake/ { print $1 }'; }

# guard NODE...: goes on where these nodes are alone, or are all in one cluster already. Whoever is in a cluster with others
# belongs to somebody else, and is not to be joined with ours.
guard() {
    for node in "$@"; do
        found=$(servers "$node" | tr '\n' ' ')
        [ "$(echo "$found" | wc -w)" -le 1 ] || refuse "$(host "$node") is the name of several servers here: $found"
    done
    ours=$(for node in "$@"; do ask "$node" cluster myid; done)
    others=$(for node in "$@"; do members "$node"; done | sort -u | grep -vxF "$ours")
    [ -n "$others" ] || return 0
    for node in "$@"; do
        strange=$(members "$node")
        [ -z "$(echo "$ours" | grep -vxF "$strange")" ] \
            || refuse "$node does not know all of $*, and some are in a cluster with $(echo "$others" | wc -l) other nodes"
    done
}

form() {
    replicas=$1
    shift
    for node in "$@"; do
        until [ "$(ask "$node" ping)" = PONG ]; do say "waiting for $node"; sleep 1; done
    done

    guard "$@"
    slots=0
    for node in "$@"; do slots=$((slots + $(slots_of "$node"))); done
    if [ "$slots" -eq 0 ]; then create "$replicas" "$@" || exit 1; fi

    for node in "$@"; do
        for peer in "$@"; do [ "$peer" = "$node" ] || introduce "$node" "$peer"; done
    done
    tries=0
    until whole "$@"; do
        tries=$((tries + 1))
        if [ $tries -eq 30 ]; then
            say "still not whole:"
            ask "$1" cluster nodes
            exit 1
        fi
        sleep 1
    done
    [ "$replicas" -eq 0 ] || employ "$@"
    say "ready: $# nodes, 16384 slots"
}

# create REPLICAS NODE...: slots for nodes that have none yet.
create() {
    replicas=$1
    shift
    addresses=
    for node in "$@"; do addresses="$addresses $(address "$node"):$(port "$node")"; done
    say "forming from$addresses"
    # shellcheck disable=SC2086 # one word per address is meant
    redis-cli $tls --cluster create $addresses --cluster-replicas "$replicas" --cluster-yes
}

# whole NODE...: every node sees all slots served and all the others joined.
whole() {
    for node in "$@"; do
        [ "$(info "$node" cluster_state)" = ok ] || return 1
        [ "$(info "$node" cluster_slots_ok)" = 16384 ] || return 1
        [ "$(info "$node" cluster_known_nodes)" -ge $# ] || return 1
    done
}

# employ NODE...: a master without slots (a node added later) becomes the replica of the master with the fewest. All is
# counted as the first node sees it, and it has to see each new replica before the next is placed.
employ() {
    for node in "$@"; do
        [ "$(ask "$node" role | head -n 1)" = master ] && [ "$(slots_of "$node")" -eq 0 ] || continue
        id=$(ask "$node" cluster myid)
        master=$(ask "$1" cluster nodes | awk '
            $3 ~ /master/ && NF > 8 { count[$1] += 0 }
            $3 ~ /slave/ { count[$4]++ }
            END { for (id in count) if (best == "" || count[id] < count[best]) best = id; print best }')
        say "$node becomes a replica of $master"
        until ask "$1" cluster nodes | grep -q "^$id [^ ]* [^ ]*slave"; do
            ask "$node" cluster replicate "$master" >/dev/null
            sleep 1
        done
    done
}

# The password reaches the server by its standard input: neither `docker inspect` nor `ps` shows it.
serve() {
    exec docker-entrypoint.sh redis-server /usr/local/etc/redis/redis.conf - <<CONFIGURATION
$(secured "$@")
$(guarded)
CONFIGURATION
}

guarded() {
    [ -z "${REDISCLI_AUTH:-}" ] || printf 'requirepass %s\nmasterauth %s\n' "$REDISCLI_AUTH" "$REDISCLI_AUTH"
}

# Nodes are known to each other by addresses; what their certificates are for is announced beside them.
secured() {
    [ -n "$tls" ] || return 0
    cat <<TLS
port 0
tls-port $1
tls-cluster yes
tls-replication yes
tls-cert-file $secrets/node.crt
tls-key-file $secrets/node.key
tls-ca-cert-file $secrets/ca.crt
cluster-announce-hostname redis-$1
TLS
}

verb=$1
shift
"$verb" "$@"
