{
# Finds or puts the helper into a sandbox. POSIX sh, and as little else as can be: `uname`, `id`,
# `mkdir`, `chmod`, `mv` and `rm`; `base64` where there is one.
#
# sh -c INSTALL sh MARK VERB [ARGUMENT...] prints one line "MARK WORD [NAME=VALUE]..." to stdout.
# The whole is one compound command, because a backend may put a `cd` in front of it.
mark=$1 verb=$2
shift 2
umask 077

answer() { printf '%s %s\n' "$mark" "$*"; exit 0; }

user_id() {
  uid=$(id -u 2>/dev/null) && [ -n "$uid" ] && return
  while read -r word value _; do
    case $word in Uid:) uid=$value; return ;; esac
  done </proc/self/status 2>/dev/null
  uid=
}
ours() { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -w "$1" ]; }
# Whether programs may be executed in folder $1, and something be written there.
executes() {
  trial=$1/trial-$mark
  if { printf '#!/bin/sh\nexit 0\n' >"$trial"; } 2>/dev/null; then
    { chmod 700 "$trial" && "$trial"; } 2>/dev/null
    status=$?
  else
    status=1 full=yes
  fi
  rm -f "$trial"
  return "$status"
}

case $verb in
find)  # NAME ID SAYS BASE...: where the helper is or could be, and where its state is or could be
  name=$1 session=$2 says=$3
  shift 3
  user_id
  [ -n "$uid" ] || answer unusable why=no-user-id
  helper= place= state= room= full=
  for base; do
    [ -d "$base" ] && [ -w "$base" ] && [ -x "$base" ] || continue
    folder=$base/.sandbox-helper-$uid
    if [ -z "$helper" ] && [ -x "$folder/$name" ] && ours "$folder"; then
      case $("$folder/$name" --version 2>/dev/null) in "$says"*) helper=$folder/$name ;; esac
    fi
    folder=$base/.sandbox-$uid-$session
    if [ -z "$state" ] && ours "$folder"; then state=$folder; fi
    if [ -z "$room" ] && [ ! -e "$folder" ] && [ ! -L "$folder" ]; then room=$folder; fi
  done
  if [ -z "$helper" ]; then
    for base; do
      [ -d "$base" ] && [ -w "$base" ] && [ -x "$base" ] || continue
      folder=$base/.sandbox-helper-$uid
      [ -e "$folder" ] || mkdir -m 700 "$folder" 2>/dev/null || full=yes
      if ours "$folder" && executes "$folder"; then place=$folder; break; fi
      rmdir "$folder" 2>/dev/null
    done
  fi
  used=${state:+yes}
  state=${state:-$room}
  [ -n "$state" ] || answer unusable why=no-writable-directory
  [ -n "$helper$place$full" ] || answer unusable why=no-directory-that-allows-executables
  [ -n "$helper$place" ] || answer unusable why=no-room-in-any-writable-directory
  base64=no
  [ "$(printf 'b2s=' | base64 -d 2>/dev/null)" = ok ] && base64=yes
  answer found "helper=$helper" "place=$place" "state=$state" "used=$used" "base64=$base64" \
    "system=$(uname -s 2>/dev/null)" "machine=$(uname -m 2>/dev/null)"
  ;;
add)  # FILE ENCODING PIECE: appends to a file that nobody else writes to
  file=$1 encoding=$2 piece=$3
  {
    case $encoding in
      base64) printf %s "$piece" | base64 -d >>"$file" ;;
      octal) printf "$piece" >>"$file" ;;
    esac
  } 2>/dev/null || { rm -f "$file"; answer failed; }
  answer added
  ;;
put)  # FILE NAME SIZE SAYS: verifies the file, and gives it its name
  file=$1 path=${1%/*}/$2 size=$3 says=$4
  if [ "$(($(wc -c <"$file" 2>/dev/null || echo "$size")))" = "$size" ] &&
    chmod 700 "$file" 2>/dev/null; then
    case $("$file" --version 2>/dev/null) in
      "$says"*) mv -f "$file" "$path" 2>/dev/null && answer put ;;
    esac
  fi
  rm -f "$file"
  answer failed
  ;;
esac
}
