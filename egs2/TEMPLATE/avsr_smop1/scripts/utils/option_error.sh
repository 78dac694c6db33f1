# shellcheck shell=bash
# Command-line errors; sourced by option parsers. Scripts call one another, and errors name the
# one that the user called: a script that passes options on exports its name.

smop_called="${SMOP_CALLED:-$0}"
unset SMOP_CALLED

smop_option_error() {
    echo "${smop_called##*/}: $*" >&2
    echo "Try '${smop_called} --help'." >&2
    exit 2
}

# The options that a help text explains, one per line.
smop_options_of() { # HELP
    grep -oE '^ *--[a-z_0-9]+' <<< "$1" | tr -d ' '
}

# Fails unless a help text explains the option, and suggests the nearest one.
smop_check_option() { # OPTION HELP
    local options given="${1//-/_}" nearest
    case "$1" in
        --*=*) smop_option_error "write '${1%%=*} VALUE' instead of '$1'" ;;
        --*) ;;
        -*) smop_option_error "there is no option $1 (options begin with --)" ;;
        *) smop_option_error "unexpected argument '$1'" ;;
    esac
    given="--${given#__}"
    options="$(smop_options_of "$2")"
    if grep -qxF -e "${given}" <<< "${options}"; then return; fi
    # By edit distance, at most a third of the letters
    nearest="$(awk -v given="${given#--}" '
        function distance(a, b,    i, j, row, left, corner, cost) {
            for (j = 0; j <= length(b); j++) row[j] = j
            for (i = 1; i <= length(a); i++) {
                corner = row[0]; row[0] = i
                for (j = 1; j <= length(b); j++) {
                    cost = corner + (substr(a, i, 1) != substr(b, j, 1))
                    corner = row[j]
                    if (row[j] + 1 < cost) cost = row[j] + 1
                    if (row[j - 1] + 1 < cost) cost = row[j - 1] + 1
                    row[j] = cost
                }
            }
            return row[length(b)]
        }
        {
            d = distance(given, substr($1, 3))
            if (NR == 1 || d < least) { least = d; nearest = $1 }
        }
        END { if (least <= 2 || least * 3 <= length(given)) print nearest }' <<< "${options}")"
    smop_option_error "there is no option $1${nearest:+; did you mean ${nearest}?}"
}

# Fails unless an option is followed by a value.
smop_check_value() { # OPTION [VALUE [NEXT]]
    [ $# -ge 2 ] || smop_option_error "option $1 needs a value"
    [[ $2 =~ ^--[a-zA-Z_-]+$ ]] || return 0
    case "$1" in
        *_args | *_opts)
            # --inference_args --beam_size 2
            if [ $# -ge 3 ] && [[ $3 != --* ]]; then
                smop_option_error "quote what belongs to $1: $1 \"$2 $3\""
            fi
            ;;
        *) smop_option_error "option $1 needs a value, not '$2'" ;;
    esac
}
