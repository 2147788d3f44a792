# shellcheck shell=sh
# Answers requests on port 8080 with the pod's name, by what the image has.
mkdir -p /tmp/www
hostname > /tmp/www/index.html
if command -v python3 > /dev/null; then
  exec python3 -m http.server 8080 --directory /tmp/www
fi
exec busybox httpd -f -p 8080 -h /tmp/www
