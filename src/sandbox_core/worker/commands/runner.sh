# Runs one command, detached from whoever asked for it, and records how it ended.
#
# Called by shim.sh, in a session of its own: sh -c RUNNER sh RECORD MODE =PROGRAM [ARGUMENT...]
#
# RECORD.run is the lock and the log of the command. Whoever creates it runs the command. Its first
# line is "PID BORN UPTIME MODE" of this process; the first line after it that begins with "exit" or
# "ended" is how it ended: "exit CODE - OUT ERR AT", with the bytes it wrote if that is known and
# the uptime, and with "signal" for the first dash if a signal killed it; or "ended REASON - - - AT".
# Lines are appended with one write each, so the first one wins. FOLDER/pruned/ID says that there was
# such a record, and that the command must not be run again.
record=$1 mode=$2 program=${3#=}
shift 3

field() { shift 19; born=$1; }
born= up=
if { read -r stat </proc/$$/stat; } 2>/dev/null; then
  field ${stat##*) }
  read -r up _ </proc/uptime
fi
set -C
{ echo "$$ ${born:-0} ${up:-0} $mode" >"$record.run"; } 2>/dev/null || exit 0
set +C
if [ -e "${record%/*}/pruned/${record##*/}" ]; then
  echo "ended pruned - - - ${up:--}" >>"$record.run"
  exit 0
fi
# The shell notes here that a signal killed the command, which the exit status alone does not tell.
exec 2>>"$record.run"

# Through pipes, as a backend would have it: a file could be truncated by a command that opens
# /dev/stderr, and the output ends when nobody has it open any more. `exec`, so that the shell's
# builtins are not taken for programs; a subshell, so that it is not the command's own stderr that
# the shell notes a signal in. Descriptor 9 marks the command's descendants: those that leave its
# session and its process tree are still found by it.
exec 7>"$record.out"
if [ "$mode" = merged ]; then
  {
    ( exec "$program" "$@" 7>&- ) 2>&1 9<"$record.run"
    echo "code $?" >>"$record.run"
  } | cat >&7
else
  exec 8>"$record.err" 3<<LINE 4<<LINE
pipe
LINE
pipe
LINE
  # A here-document is a pipe to most shells, and Linux opens it for writing too. That saves the two
  # processes that would otherwise run the left sides of two pipelines.
  if [ -p /proc/self/fd/3 ] && [ -p /proc/self/fd/4 ] && [ -w /proc/self/fd/4 ]; then
    read -r _ <&3
    read -r _ <&4
    exec 5>/proc/self/fd/3 6>/proc/self/fd/4
    cat <&3 >&7 5>&- 6>&- &
    cat <&4 >&8 5>&- 6>&- &
    exec 3<&- 4<&-
    ( exec "$program" "$@" 5>&- 6>&- 7>&- 8>&- ) >&5 2>&6 9<"$record.run"
    echo "code $?" >>"$record.run"
    exec 5>&- 6>&-
    wait
  else
    {
      {
        ( exec "$program" "$@" 3>&- 4>&- 7>&- 8>&- ) 2>&3 9<"$record.run"
        echo "code $?" >>"$record.run"
      } 3>&1 >&4 | cat >&8
    } 4>&1 | cat >&7
  fi
fi

# Between the first line and that with the code there is the note about a signal, if there was one.
code= signal=- out=- err=-
{
  read -r _
  while read -r word value; do
    case $word in
      code) code=$value; break ;;
      exit | ended) break ;;
      ?*) signal=signal ;;
    esac
  done
} <"$record.run"
[ "${code:-0}" -gt 128 ] || signal=-
{
  read -r _ out </proc/$$/fdinfo/7
  read -r up _ </proc/uptime
  [ "$mode" = merged ] || read -r _ err </proc/$$/fdinfo/8
} 2>/dev/null
[ -n "$code" ] || exit 0
echo "exit $code $signal ${out:--} ${err:--} ${up:--}" >>"$record.run"
echo done 2>/dev/null
