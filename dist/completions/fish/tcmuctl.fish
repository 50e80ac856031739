# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tcmuctl_global_optspecs
    string join \n json h/help V/version
end

function __fish_tcmuctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tcmuctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tcmuctl_using_subcommand
    set -l cmd (__fish_tcmuctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -s V -l version -d 'Print version'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "status" -d 'Whether the daemon runs, and how much it has to do'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "handlers" -d 'The handlers and their plugins'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "devices" -d 'The devices and what was done for them'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "device" -d 'About single devices'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "create" -d 'Makes a disk and exports it. When a step fails, nothing stays behind'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "delete" -d 'Takes disks away with all their exports; their data stays'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "resize" -d 'Makes a disk larger or smaller while it is used'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "set" -d 'Changes a disk\'s switches and limits, all or none'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "attach" -d 'Exports a disk that is there'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "export" -d 'Exports a disk that is there'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "detach" -d 'Takes exports away; the disk stays'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "apply" -d 'Makes disks as files describe them; shows first what it would do'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "save" -d 'Writes the file that describes a disk'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "doctor" -d 'Looks for what keeps disks from being served, and says what mends it. Exit status 1: something is wrong'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "stats" -d 'What was done for each device and by each handler, and how long it took'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "top" -d 'What devices do now: rates, latencies, queues; the busiest first. Ctrl-C ends it'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "trace" -d 'Writes each command of a device to a file, and prints such files'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "log-level" -d 'Log more or less: error, warn, info, debug, trace, or a filter'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "tune" -d 'The kernel\'s limits of each device: what they cost and how to change them'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "reload" -d 'Read the configuration again'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "migrate" -d 'Convert tcmu-runner\'s configuration'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "handler" -d 'About handlers'
complete -c tcmuctl -n "__fish_tcmuctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand status" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handlers" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handlers" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand devices" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand devices" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and not __fish_seen_subcommand_from show help" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Everything that is known of a device'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and __fish_seen_subcommand_from show" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "show" -d 'Everything that is known of a device'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l size -d 'Its size: bytes, or with K, M, G, T or P behind the number' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l config -d 'The config string for the handler (`tcmuctl handler info HANDLER`); the disk\'s name if neither this nor --path is there' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l path -d 'The file or device for the handler: the config string, made absolute' -r -F
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l block-size -d 'Logical block size in bytes; 512 if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l hw-max-sectors -d 'Longest transfer, in units of 512 bytes; 2048 (1 MiB) if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l write-cache -d 'Whether initiators are told that writes are cached' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l serial -d 'The unit serial number; one that stays the same for this machine, handler, config string and name if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l hba -d 'The number of the HBA; the first that is free if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l set -d 'More of the kernel\'s settings, as cmd_time_out=60 or max_data_area_mb=256' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l iscsi -d 'Over iSCSI, by a target of this name, or of the machine\'s and the disk\'s name. One that is there gets another LUN' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l portal -d 'Where the iSCSI target listens: ADDRESS or ADDRESS:PORT. A new target listens on 0.0.0.0:3260 if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l acl -d 'An initiator that may log in, or `any`. A new target lets in this machine\'s own initiator if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l chap -d 'A user name that initiators need. The password comes from --chap-password-file, $TCMUCTL_CHAP_PASSWORD or the terminal' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l chap-password-file -d 'A file with the CHAP password, which only its owner may read' -r -F
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l lun -d 'The number of the iSCSI LUN; the first that is free if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l no-check -d 'Don\'t ask the daemon whether the config string is right: for handlers that another program serves'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l loopback -d 'As a SCSI disk of this machine'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l vhost -d 'To virtual machines (vhost-scsi)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand create" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand delete" -l force -d 'Also those that are in use: mounted, or logged in to'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand delete" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand delete" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand resize" -l shrink -d 'It may become smaller: what is beyond is lost'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand resize" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand resize" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand set" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand set" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l iscsi -d 'Over iSCSI, by a target of this name, or of the machine\'s and the disk\'s name. One that is there gets another LUN' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l portal -d 'Where the iSCSI target listens: ADDRESS or ADDRESS:PORT. A new target listens on 0.0.0.0:3260 if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l acl -d 'An initiator that may log in, or `any`. A new target lets in this machine\'s own initiator if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l chap -d 'A user name that initiators need. The password comes from --chap-password-file, $TCMUCTL_CHAP_PASSWORD or the terminal' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l chap-password-file -d 'A file with the CHAP password, which only its owner may read' -r -F
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l lun -d 'The number of the iSCSI LUN; the first that is free if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l loopback -d 'As a SCSI disk of this machine'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l vhost -d 'To virtual machines (vhost-scsi)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand attach" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l iscsi -d 'Over iSCSI, by a target of this name, or of the machine\'s and the disk\'s name. One that is there gets another LUN' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l portal -d 'Where the iSCSI target listens: ADDRESS or ADDRESS:PORT. A new target listens on 0.0.0.0:3260 if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l acl -d 'An initiator that may log in, or `any`. A new target lets in this machine\'s own initiator if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l chap -d 'A user name that initiators need. The password comes from --chap-password-file, $TCMUCTL_CHAP_PASSWORD or the terminal' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l chap-password-file -d 'A file with the CHAP password, which only its owner may read' -r -F
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l lun -d 'The number of the iSCSI LUN; the first that is free if nothing is said' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l loopback -d 'As a SCSI disk of this machine'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l vhost -d 'To virtual machines (vhost-scsi)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand export" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand detach" -l iscsi -d 'The LUN of this iSCSI target, or of all. A target goes with its last LUN' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand detach" -l loopback -d 'The disk of this machine'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand detach" -l vhost -d 'The one for virtual machines'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand detach" -l all -d 'Everything'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand detach" -l force -d 'Also what is in use: mounted, or logged in to'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand detach" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand detach" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand apply" -l allow -d 'What may be done though something may be lost: shrink, recreate, detach, remove' -r -f -a "shrink\t'Make a disk smaller'
recreate\t'Take a disk away and make it anew, where what was changed is fixed otherwise'
detach\t'Take away exports that are not in the file'
remove\t'Take away disks whose file is gone'"
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand apply" -l dry-run -d 'Only show what would be done'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand apply" -s y -l yes -d 'Don\'t ask'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand apply" -l no-check -d 'Don\'t ask the daemon whether config strings are right'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand apply" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand save" -s o -l output -d 'The file; NAME.toml in /etc/tcmu/disks.d if nothing is said. `-` prints it. CHAP passwords go into files beside it' -r -F
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand save" -l force -d 'Replace a file that is there'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand save" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand save" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand doctor" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand stats" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand stats" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand top" -l interval -d 'Seconds between two looks' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand top" -l once -d 'Show one interval and end; so it does where the output is no terminal'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand top" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and not __fish_seen_subcommand_from start stop print help" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and not __fish_seen_subcommand_from start stop print help" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and not __fish_seen_subcommand_from start stop print help" -f -a "start" -d 'Writes each command of a device to a file, until `stop` or the limit. Its commands take a little longer meanwhile'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and not __fish_seen_subcommand_from start stop print help" -f -a "stop" -d 'Ends that'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and not __fish_seen_subcommand_from start stop print help" -f -a "print" -d 'Prints such a file: each command in words, or with --json as an object on a line of its own'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and not __fish_seen_subcommand_from start stop print help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from start" -l limit -d 'Most bytes, such as 100M; a command takes 48' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from start" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from stop" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from print" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from print" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from help" -f -a "start" -d 'Writes each command of a device to a file, until `stop` or the limit. Its commands take a little longer meanwhile'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from help" -f -a "stop" -d 'Ends that'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from help" -f -a "print" -d 'Prints such a file: each command in words, or with --json as an object on a line of its own'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand trace; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand log-level" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand log-level" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand tune" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand tune" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand reload" -l exec -d 'Also exchange the daemon for the program that is on disk now, as after an upgrade, without a pause in I/O'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand reload" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand migrate" -l from -d 'tcmu-runner\'s configuration' -r -F
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand migrate" -l to -d 'Ours, which must not be there yet; `-` prints it' -r -F
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand migrate" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand migrate" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -f -a "list" -d 'The handlers and their plugins'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -f -a "info" -d 'Everything that is known of a handler, and what its config strings look like'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -f -a "test" -d 'Tests a plugin against a model, without a kernel or root. Exit status: 0 all passed, 1 some failed, 2 it can\'t be tested'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -f -a "restart" -d 'Restarts a handler with the plugin that is on disk now. Its devices pause for a moment; no command fails'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -f -a "reload" -d 'Restarts the handlers whose plugin on disk is another than the one they run'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and not __fish_seen_subcommand_from list info test restart reload help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from list" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from info" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l config -d 'The config string behind `<subtype>/`. All data of that device is overwritten' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l size -d 'Bytes of the device to test with' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l block-size -d 'Logical block size in bytes' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l seed -d 'Seed of the random numbers, to repeat a run' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l timeout -d 'Seconds that the whole run may take' -r
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l persistent -d 'Data must survive closing and opening; without this the report only notes whether it does'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l zeros -d 'The handler keeps nothing and reads give zeros (as `null`): only zeros are written'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from restart" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from restart" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from reload" -l json -d 'Print JSON, for programs'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from reload" -s h -l help -d 'Print help'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from help" -f -a "list" -d 'The handlers and their plugins'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from help" -f -a "info" -d 'Everything that is known of a handler, and what its config strings look like'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from help" -f -a "test" -d 'Tests a plugin against a model, without a kernel or root. Exit status: 0 all passed, 1 some failed, 2 it can\'t be tested'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from help" -f -a "restart" -d 'Restarts a handler with the plugin that is on disk now. Its devices pause for a moment; no command fails'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from help" -f -a "reload" -d 'Restarts the handlers whose plugin on disk is another than the one they run'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand handler; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "status" -d 'Whether the daemon runs, and how much it has to do'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "handlers" -d 'The handlers and their plugins'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "devices" -d 'The devices and what was done for them'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "device" -d 'About single devices'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "create" -d 'Makes a disk and exports it. When a step fails, nothing stays behind'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "delete" -d 'Takes disks away with all their exports; their data stays'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "resize" -d 'Makes a disk larger or smaller while it is used'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "set" -d 'Changes a disk\'s switches and limits, all or none'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "attach" -d 'Exports a disk that is there'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "detach" -d 'Takes exports away; the disk stays'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "apply" -d 'Makes disks as files describe them; shows first what it would do'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "save" -d 'Writes the file that describes a disk'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "doctor" -d 'Looks for what keeps disks from being served, and says what mends it. Exit status 1: something is wrong'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "stats" -d 'What was done for each device and by each handler, and how long it took'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "top" -d 'What devices do now: rates, latencies, queues; the busiest first. Ctrl-C ends it'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "trace" -d 'Writes each command of a device to a file, and prints such files'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "log-level" -d 'Log more or less: error, warn, info, debug, trace, or a filter'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "tune" -d 'The kernel\'s limits of each device: what they cost and how to change them'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "reload" -d 'Read the configuration again'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "migrate" -d 'Convert tcmu-runner\'s configuration'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "handler" -d 'About handlers'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and not __fish_seen_subcommand_from status handlers devices device create delete resize set attach detach apply save doctor stats top trace log-level tune reload migrate handler help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from device" -f -a "show" -d 'Everything that is known of a device'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from trace" -f -a "start" -d 'Writes each command of a device to a file, until `stop` or the limit. Its commands take a little longer meanwhile'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from trace" -f -a "stop" -d 'Ends that'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from trace" -f -a "print" -d 'Prints such a file: each command in words, or with --json as an object on a line of its own'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from handler" -f -a "list" -d 'The handlers and their plugins'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from handler" -f -a "info" -d 'Everything that is known of a handler, and what its config strings look like'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from handler" -f -a "test" -d 'Tests a plugin against a model, without a kernel or root. Exit status: 0 all passed, 1 some failed, 2 it can\'t be tested'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from handler" -f -a "restart" -d 'Restarts a handler with the plugin that is on disk now. Its devices pause for a moment; no command fails'
complete -c tcmuctl -n "__fish_tcmuctl_using_subcommand help; and __fish_seen_subcommand_from handler" -f -a "reload" -d 'Restarts the handlers whose plugin on disk is another than the one they run'
