# Where WITHHELD names options by which a capture does without hooks, every capture of nginx
# has them, and doctor too: whoever runs whoclosed runs this in its place.
if [ -n "$WITHHELD" ]; then
    folder=$(mktemp -d)
    # For users who own nothing, too.
    chmod 755 "$folder"
    cat > "$folder/whoclosed" <<END
#!/bin/sh
verb=\$1
case "\$*" in
*'--role backend'*) options= ;;
capture* | doctor*) options='$(echo "$WITHHELD" | tr , ' ')' ;;
*) options= ;;
esac
shift
exec "$WHOCLOSED" "\$verb" \$options "\$@"
END
    chmod 755 "$folder/whoclosed"
    export WHOCLOSED="$folder/whoclosed"
fi
