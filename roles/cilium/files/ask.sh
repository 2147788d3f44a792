# shellcheck shell=sh
# Asks every URL that is given, by what the image has, and tells which do not answer.
if command -v python3 > /dev/null; then
  exec python3 - "$@" << 'END'
import sys
import urllib.request

silent = []
for url in sys.argv[1:]:
    try:
        urllib.request.urlopen(url, timeout=5).read()
    except OSError as exc:
        silent.append(f"{url}: {exc}")
print("; ".join(silent))
sys.exit(bool(silent))
END
fi

ask() {
  if command -v curl > /dev/null; then
    curl --fail --silent --show-error --max-time 5 --output /dev/null "$1" 2>&1
  else
    timeout 5 wget -q -O /dev/null "$1" 2>&1 || echo "no answer in 5 s"
  fi
}

silent=0
for url; do
  said=$(ask "$url")
  if [ -n "$said" ]; then
    echo "$url: $said;"
    silent=1
  fi
done
exit $silent
