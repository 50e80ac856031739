# Plugins that can't be trusted or don't fit are refused by name and reason, the rest is loaded; mistakes in the config name their line.
. ./lib.sh
D=$W/plugins
mkdir -p $D
cp $TCMU_HANDLER_PATH/libhandler_null.so $D/handler_null.so
cp $TCMU_HANDLER_PATH/libhandler_alloc.so $D/libhandler_alloc.so
chmod 666 $D/libhandler_alloc.so
echo nonsense >$D/handler_text.so
cp /usr/lib/x86_64-linux-gnu/libm.so.6 $D/handler_libm.so
cp $D/handler_null.so $D/handler_zero.so
chmod 755 $D $D/handler_*.so
if tcmu-runnerd --handler-path $D --check >$W/check 2>&1; then fail "bad plugins, and --check says all is well"; fi
cat $W/check
grep -q "^handler: null 0.1.0" $W/check
grep -q "libhandler_alloc.so: not used, since everybody may write it" $W/check
grep -q "handler_text.so: cannot be loaded" $W/check
grep -q "handler_libm.so: is no handler" $W/check
grep -q "handler_zero.so: another plugin before it has the subtype" $W/check
start_daemon --handler-path $D
expect '"null"' tcmuctl handlers --json
grep -q "plugin refused: .*libhandler_alloc.so: not used, since everybody may write it" $LOG
grep -q "handler_zero.so: has the same subtype" $LOG
backstore 0 n null/x $((16 << 20))
remove_backstore 0 n
if tcmu-runnerd --handler-path $D >$W/second 2>&1; then fail "a second daemon ran"; fi
grep -q "another tcmu-runnerd is running" $W/second
stop_daemon
printf 'log_level = "info"\nworkerz = 3\n' >$W/tcmu.toml
expect "tcmu.toml:2: unknown field \`workerz\`" tcmu-runnerd --config $W/tcmu.toml --check
tcmu-runnerd --handler-path $TCMU_HANDLER_PATH --check
