# Asks every URL that is given, by what the image has; tells which do not answer.
ask() {
  if command -v python3 > /dev/null; then
    python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).read()' "$1" 2>&1 | tail -n 1
  elif command -v curl > /dev/null; then
    curl --fail --silent --show-error --max-time 5 --output /dev/null "$1" 2>&1
  else
    timeout 5 wget -q -O /dev/null "$1" 2>&1 || echo "no answer in 5 s"
  fi
}

silent=0
for url; do
  said=$(ask "$url")
  if [ -n "$said" ]; then
    echo "$url: $said"
    silent=1
  fi
done
exit $silent
