{
# Starts, awaits, reads and ends commands whose records are files in DIR, one set a command. POSIX
# sh, and builtins wherever a command that ends at once passes through.
#
# sh -c SHIM sh VERB MARK DIR [ARGUMENT...] prints "MARK ANSWER" as a line of stdout: the first of
# `run`, the last of the others. The whole is one compound command, because a backend may put a `cd`
# in front of it. The parts between "##" lines are left out where they are not needed.
verb=$1 mark=$2 dir=$3
shift 3

say() { printf '%s %s\n' "$mark" "$*"; }
answer() { say "$@"; exit 0; }

# Sets pid, born, up, mode, and once the command has ended: end (exit, ended), code, how, out, err,
# at.
state() {
  pid= born= up= mode= end= code= how= out= err= at=
  {
    read -r pid born up mode
    while read -r word code how out err at; do
      case $word in exit | ended) end=$word; break ;; esac
    done
  } <"$record.run"
}
stat_fields() { status=$1 parent=$2 session=$4; shift 19; since=$1; }
alive() {
  if [ -z "$pid" ]; then  # Created, and about to be written.
    [ "$naps" -lt 40 ]
  elif [ -r /proc/self/stat ]; then
    { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || return 1
    stat_fields ${stat##*) }
    case $status in [ZX]) return 1 ;; esac
    [ "$since" = "$born" ]
  else
    kill -0 "$pid" 2>/dev/null
  fi
}

# Times are in hundredths of a second. Without /proc/uptime the naps are counted.
hundredths() { case $1 in *.*) f=1${1#*.}; t=$((${1%.*} * 100 + f - 100)) ;; *) t=0 ;; esac; }
clock() {
  if { read -r t _ </proc/uptime; } 2>/dev/null; then hundredths "$t"; now=$t
  else now=$slept; fi
}
naps=0 slept=0
nap() {
  naps=$((naps + 1))
  if [ "$naps" -lt 20 ]; then n=5; else n=20; fi
  if sleep "0.$((n / 10))$((n % 10))" 2>/dev/null; then slept=$((slept + n))
  else sleep 1; slept=$((slept + 100)); fi
}
# Waits at most $1 for the end. Returns 0 at the end, 1 if there will be none, 2 if it is not yet.
await() {
  clock; limit=$((now + $1))
  while :; do
    state
    [ -z "$end" ] || return 0
    if ! alive; then state; [ -n "$end" ]; return; fi
    clock
    [ "$now" -lt "$limit" ] || return 2
    nap
  done
}
# Exits as the command did, so that the backend reports it in its own way.
leave() {
  if [ "$2" = signal ]; then ulimit -c 0; kill "-$(($1 - 128))" $$; fi
  exit "$1"
}

newline='
'
# Copies file $1 to stdout. If $2 says that it is short, the shell reads it itself, which takes a
# tenth of the time of starting `cat`; but only plain text, and only if all of it was read.
copy() {
  case $2 in
    [0-9] | [0-9][0-9] | [0-9][0-9][0-9])
      text= line=
      while IFS= read -r line; do text=$text$line$newline; done <"$1"
      text=$text$line
      case $text in
        *[!\ -~"$newline"]*) ;;
        *) if [ "${#text}" = "$2" ]; then printf %s "$text"; return; fi ;;
      esac
      ;;
  esac
  [ ! -s "$1" ] || cat "$1"
}

prepare() {
  if [ ! -d "$dir" ]; then
    mkdir -m 700 "$dir" 2>/dev/null
    echo "$1" >"$dir/root"
  fi 2>/dev/null
  [ -d "$dir" ] && [ -O "$dir" ] && [ ! -L "$dir" ] && [ -w "$dir" ] || answer unsupported
}
runnable() {
  case $1 in
    */*) [ -x "$1" ] && [ ! -d "$1" ] ;;
    *) command -v "$1" >/dev/null ;;
  esac || answer missing
}

## processes
# Records that the command was ended, for the reason $1; it had not ended if this line is the first.
ended() {
  up=
  { read -r up _ </proc/uptime; } 2>/dev/null
  echo "ended $1 - - - ${up:--}" >>"$record.run"
  state
}
# Marks every process of the commands given by their records, and kills them until none is left:
# their sessions, their descendants, and whoever has inherited descriptor 9 from them.
slay() {
  roots=
  for record; do
    state
    [ "${pid:-0}" -gt 1 ] || continue
    if [ ! -r /proc/self/stat ]; then kill -9 -- "-$pid" 2>/dev/null; continue; fi
    # A process id that is another process's by now is not the id of a session either.
    if alive || [ ! -d "/proc/$pid" ]; then roots="$roots $pid"; fi
  done
  rounds=0
  while [ "$rounds" -lt 50 ]; do
    rounds=$((rounds + 1))
    found=" " rest=
    for p in /proc/[0-9]*; do
      { read -r stat <"$p/stat"; } 2>/dev/null || continue
      p=${p#/proc/}
      stat_fields ${stat##*) }
      case $status in [ZX]) continue ;; esac
      [ "$p" != $$ ] || continue
      case "$roots " in *" $session "* | *" $p "*) found="$found$p "; continue ;; esac
      if [ -e "/proc/$p/fd/9" ]; then
        for record; do
          if [ "/proc/$p/fd/9" -ef "$record.run" ] || [ "/proc/$p/fd/9" -ef "$record.acks" ]; then
            found="$found$p "
            continue 2
          fi
        done
      fi
      rest="$rest $p:$parent"
    done
    more=1
    while [ -n "$more" ]; do
      more=
      for p in $rest; do
        case $found in
          *" ${p%:*} "*) ;;
          *" ${p#*:} "*) found="$found${p%:*} "; more=1 ;;
        esac
      done
    done
    [ "$found" != " " ] || break
    kill -9 $found 2>/dev/null
    [ "$rounds" -lt 5 ] || nap
  done
}

# Reads the acknowledgements, one append-only log of "POLL FROM TO STATUS"; a line counts only if it
# goes on where the last one that counts ended. Sets from, to and last of the last one that counts,
# or of that of poll $1; then mine is set. An empty line keeps the time of an empty poll.
acknowledged() {
  from=0 to=0 last=- mine=
  if [ -e "$record.acks" ]; then
    while read -r who begin finish status; do
      [ "$begin" = "$to" ] && [ "$last" = - ] || continue
      from=$begin to=$finish last=$status
      [ "$who" != "$1" ] || { mine=1; break; }
    done <"$record.acks"
  fi
}
# Answers with the bytes that poll $1 is given: those that no poll was given before, or if it has
# been here before, the same ones.
deliver() {
  poll=$1
  while :; do
    acknowledged "$poll"
    [ -z "$mine" ] || break
    [ "$last" = - ] || answer unknown
    await 0
    case $? in 0) last=$end:$code:$how ;; 1) answer lost ;; esac
    [ "$end" != ended ] || answer unknown
    size=0
    [ ! -s "$record.out" ] || size=$(wc -c <"$record.out")
    size=$((size))
    if [ "$size" = "$to" ] && [ "$last" = - ]; then
      from=$to
      echo >>"$record.acks"
      break
    fi
    echo "$poll $to $size $last" >>"$record.acks"
  done
  # Up to three bytes that were given before come first: a character may have been cut there.
  back=$((from < 3 ? from : 3))
  if [ "$to" -gt "$from" ] || [ "$last" != - ]; then
    count=$((to - from + back))
    if [ "$from" = 0 ] && [ "$last" != - ]; then
      [ "$count" = 0 ] || cat "$record.out"
    else
      tail -c "+$((from - back + 1))" "$record.out" | head -c "$count"
    fi
  else
    back=0
  fi
  say chunk "${number:-0}" "$back" "${last%%:*}"
  case $last in
    exit:*) how=${last#exit:}; leave "${how%%:*}" "${how#*:}" ;;
  esac
  exit 0
}

# Finds the process numbered $1; sets record. A folder that only its own user can read is named.
find_process() {
  elsewhere=
  for d in "$dir" "$dir"-*; do
    if [ -r "$d/p$1" ]; then
      read -r id <"$d/p$1"
      record=$d/$id
      [ -e "$record.run" ] && return 0
    elif [ -d "$d" ] && [ ! -x "$d" ]; then
      elsewhere="$elsewhere ${d#"$dir"-}"
    fi
  done
  answer unknown $elsewhere
}

# Whether nobody can ask for a process any more: its end was told, or it was ended.
over() {
  [ "$end" != ended ] || return 0
  [ "$end" = exit ] && acknowledged - && [ "$last" != - ]
}
# Removes the records of commands that have ended, but for an empty mark each: it must not be run
# again. The mark comes first, and RECORD.run goes first, so that whoever still finds that one after
# having copied the output has copied the whole.
drop() {
  [ -d "$dir/pruned" ] || mkdir "$dir/pruned" || return
  for record; do
    true >"$dir/pruned/${record##*/}" || return
    shift
    set -- "$@" "$record.run" "$record.out" "$record.err" "$record.acks"
  done
  for p in "$dir"/p[0-9]*; do
    [ -e "$p" ] && read -r id <"$p" && [ -e "$dir/pruned/$id" ] && set -- "$@" "$p"
  done
  rm -f "$@"
}
# Removes the records of the oldest commands that have ended: those beyond the newest $1 that ended
# more than $2 seconds ago, and those beyond $3 bytes of output; never the newest $4.
prune() {
  keep=$1 age=$2 bytes=$3 always=$4 count=0 total=0
  clock
  set --
  for name in $(ls -t "$dir"); do
    record=$dir/${name%.run}
    [ "$record" != "$dir/$name" ] || continue
    state
    [ -n "$end" ] || continue
    [ "$mode" != merged ] || over || continue
    for file in out err; do
      case $file in out) size=$out ;; *) size=$err ;; esac
      case $size in
        "" | -) if [ -s "$record.$file" ]; then size=$(wc -c <"$record.$file"); else size=0; fi ;;
      esac
      total=$((total + size))
    done
    count=$((count + 1))
    [ "$count" -gt "$always" ] || continue
    if [ "$total" -le "$bytes" ]; then
      [ "$count" -gt "$keep" ] || continue
      hundredths "${at:--}"
      [ "$t" -gt 0 ] && [ "$((now - t))" -gt "$((age * 100))" ] || continue
    fi
    set -- "$@" "$record"
    if [ "$#" -ge 100 ]; then drop "$@"; set --; fi
  done
  [ "$#" = 0 ] || drop "$@"
}
# Makes room for one more process if $1 are open, as the SDK's backends do: never one of the $2 that
# were used last, rather one that has ended than one that runs, and the one used longest ago.
make_room() {
  most=$1 recent=$2
  set -- "$dir"/p[0-9]*
  [ "$#" -ge "$most" ] || return 0
  for p; do
    shift
    { read -r id <"$p"; } 2>/dev/null || continue
    record=$dir/$id
    [ -s "$record.run" ] || continue
    state
    over || set -- "$@" "$record.acks"
  done
  [ "$#" -ge "$most" ] || return 0
  victim= finished= count=0
  for record in $(ls -t "$@"); do
    count=$((count + 1))
    [ "$count" -gt "$recent" ] || continue
    record=${record%.acks}
    state
    victim=$record
    [ -z "$end" ] || finished=$record
  done
  record=${finished:-$victim}
  [ -n "$record" ] || return 0
  ended evicted
  if [ "$end" = ended ]; then slay "$record"; else drop "$record"; fi
}

##

case $verb in
run)  # ID ROOT WAIT TIMEOUT PRUNE RUNNER =PROGRAM [ARGUMENT...]
  record=$dir/$1 root=$2 wait=$3 timeout=$4 prune=$5 runner=$6
  shift 6
  if [ ! -e "$record.run" ]; then
    prepare "$root"
    runnable "${1#=}"
    # The pipe of the substitution is closed when the runner ends. Its process leads no group, so
    # setsid needs not fork.
    if command -v setsid >/dev/null; then
      x=$(setsid sh -c "$runner" sh "$record" split "$@" </dev/null 2>/dev/null)
    else
      x=$(sh -c "$runner" sh "$record" split "$@" </dev/null 2>/dev/null)
    fi
    [ -e "$record.run" ] || answer unsupported
  fi
  state
  if [ -z "$end" ]; then
    if [ "$timeout" != - ] && [ -n "$up" ] && [ "$up" != 0 ]; then
      clock; hundredths "$up"; left=$((t + timeout - now))
      [ "$left" -gt 0 ] || answer overdue
      [ "$left" -ge "$wait" ] || wait=$left
    fi
    await "$wait"
    case $? in 1) answer lost ;; 2) answer running ;; esac
  fi
  [ "$end:$code" != ended:pruned ] || answer pruned
  [ "$end" = exit ] || answer ended "$code"
  LC_ALL=C  # The range in a pattern is of bytes.
  copy "$record.err" "$err" >&2
  say exit "$code"
  copy "$record.out" "$out"
  [ -e "$record.run" ] || exit 0  # It was pruned, perhaps before all of it was copied.
  say end
  # Whoever removes the folder ends this by its descriptor 9.
  if [ "$prune" != - ]; then prune $prune 9<"$record.run" </dev/null >/dev/null 2>&1 & fi
  leave "$code" "$how"
  ;;
## processes
start)  # ID ROOT WAIT NUMBER TAKEN PRUNE ROOM RUNNER =PROGRAM [ARGUMENT...]
  operation=$1 root=$2 wait=$3 number=$4 taken=" $5 " prune=$6 room=$7 runner=$8
  shift 8
  if [ ! -e "$dir/$operation.run" ]; then
    prepare "$root"
    runnable "${1#=}"
    make_room $room
  fi
  record=$dir/$operation
  set -C
  while :; do
    case $taken in
      *" $number "*) ;;
      *)
        { echo "$operation" >"$dir/p$number"; } 2>/dev/null && break
        # Whoever takes a number creates its file first, and then writes into it.
        owner=
        until { read -r owner <"$dir/p$number"; } 2>/dev/null; do
          [ "$naps" -lt 20 ] && [ -e "$dir/p$number" ] || break
          nap
        done
        [ "$owner" != "$operation" ] || break
        ;;
    esac
    number=$((number == 99999 ? 1000 : number + 1))
  done
  set +C
  clock; begun=$now
  if [ ! -e "$record.run" ]; then
    # Whichever comes first: the runner's "done", or the alarm's "late". Who ends the command ends
    # the alarm too, by its descriptor 9.
    echo >>"$record.acks"
    {
      if command -v setsid >/dev/null; then
        setsid setsid sh -c "$runner" sh "$record" merged "$@" </dev/null 2>/dev/null
      else
        sh -c "$runner" sh "$record" merged "$@" </dev/null 2>/dev/null &
      fi
      (
        sleep "$((wait / 100)).$((wait / 10 % 10))$((wait % 10))" </dev/null >/dev/null &
        echo "$!"; wait; echo late
      ) </dev/null 2>/dev/null 9<"$record.acks" &
    } | {
      alarm= news=
      while [ -z "$alarm" ] || [ -z "$news" ]; do
        read -r line || break
        case $line in [0-9]*) alarm=$line ;; *) news=$line ;; esac
      done
      [ -z "$alarm" ] || kill "$alarm" 2>/dev/null
    }
    # The runner has been forked, and may not have got to the lock yet.
    while [ ! -e "$record.run" ] && [ "$naps" -lt 40 ]; do nap; done
    [ -e "$record.run" ] || answer lost
  fi
  clock
  await "$((begun + wait - now))"
  if [ "$prune" != - ]; then prune $prune 9<"$record.run" </dev/null >/dev/null 2>&1 & fi
  [ "$end:$code" != ended:pruned ] || answer pruned
  deliver "$operation"
  ;;
poll)  # NUMBER POLL WAIT
  number=$1
  find_process "$number"
  state
  [ "$mode" = merged ] || answer unknown
  await "$3"
  deliver "$2"
  ;;
find)  # NUMBER
  find_process "$1"
  state
  [ "$end" != ended ] || answer unknown
  answer found
  ;;
kill)  # ID ROOT REASON
  record=$dir/$1
  prepare "$2"
  # Nobody can start it any more: the lock is taken, by a command that has ended.
  set -C
  { echo "0 0 0 none" >"$record.run"; } 2>/dev/null
  set +C
  ended "$3"
  [ "$end" = ended ] || answer finished
  slay "$record"
  answer ended "$code"
  ;;
end)  # WHICH: the processes that still run, or all that there ever was, with their records
  elsewhere=
  for d in "$dir" "$dir"-*; do
    [ -d "$d" ] || continue
    if [ ! -x "$d" ]; then elsewhere="$elsewhere ${d#"$dir"-}"; continue; fi
    which=$1
    set --
    for record in "$d"/*.run; do
      [ -e "$record" ] || continue
      record=${record%.run}
      state
      if [ "$which" = processes ]; then
        [ "$mode" = merged ] && [ -z "$end" ] || continue
        ended terminated
      fi
      set -- "$@" "$record"
    done
    [ "$#" = 0 ] || slay "$@"
    set -- "$which"
    if [ "$which" = all ]; then
      rm -rf "$d"
    else
      for p in "$d"/p[0-9]*; do
        if [ -e "$p" ]; then rm -f "$d"/p[0-9]*; break; fi
      done
    fi
  done
  answer done $elsewhere
  ;;
##
esac
}
