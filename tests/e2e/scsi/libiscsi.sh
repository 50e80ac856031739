# libiscsi's SCSI suite over iSCSI, with explicit ACLs: libiscsi_suite CORE/NAME OUTPUT [TEST] writes a line `SUITE.TEST result` for
# each test. Results: passed, failed, unfinished, or skipped with the suite's own reason. MultipathIO gets a second path.
INITIATOR=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test

libiscsi_suite() {
    local store=$1 output=$2 tests=${3:-SCSI} target=iqn.2026-01.org.example:libiscsi acl port
    local tpg=$C/iscsi/$target/tpgt_1
    mkdir -p $C/iscsi $tpg/lun/lun_0
    for port in 3262 3263; do mkdir -p $tpg/np/127.0.0.1:$port; done
    echo 0 >$tpg/attrib/authentication
    ln -s $C/core/$store $tpg/lun/lun_0/disk
    for acl in $INITIATOR $INITIATOR-2; do
        mkdir -p $tpg/acls/$acl/lun_0
        ln -s $tpg/lun/lun_0 $tpg/acls/$acl/lun_0/mapped
    done
    echo 1 >$tpg/enable
    timeout 400 iscsi-test-cu --dataloss --allow-sanitize --verbose --test "$tests" iscsi://127.0.0.1:3262/$target/0 \
        $([[ $tests != *MultipathIO ]] || echo iscsi://127.0.0.1:3263/$target/0) >$output.log 2>&1 || true
    awk '
        function flush() { if (test != "") print suite "." test, (result == "passed" && skip != "" ? "skipped: " skip : result) }
        /^Suite: / { flush(); test = ""; suite = $2 }
        /^  Test: / { flush(); test = $2; skip = ""; result = "unfinished" }
        /\[SKIPPED\]/ { if (skip == "") { skip = $0; sub(/.*\[SKIPPED\] */, "", skip) } }
        /\.\.\.passed|^ *passed|passed$/ { if (test != "" && result == "unfinished") result = "passed" }
        /^FAILED|\.\.\.FAILED/ { if (test != "" && result == "unfinished") result = "failed" }
        /^Run Summary/ { flush(); test = "" }
    ' $output.log >$output
    echo 0 >$tpg/enable
    for acl in $INITIATOR $INITIATOR-2; do
        rm $tpg/acls/$acl/lun_0/mapped
        rmdir $tpg/acls/$acl/lun_0 $tpg/acls/$acl
    done
    rm $tpg/lun/lun_0/disk
    rmdir $tpg/lun/lun_0 $tpg/np/127.0.0.1:3262 $tpg/np/127.0.0.1:3263 $tpg $C/iscsi/$target
}
