/* sandbox-helper: runs commands in a sandbox exactly once. See README.md and PROTOCOL.md. */
#include "helper.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        printf("sandbox-helper %d %s\n", PROTOCOL, SOURCE_HASH);
        return 0;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: sandbox-helper VERB PIECE... | --version (see PROTOCOL.md)\n");
        return 64;
    }
    return client_main(argv[1], argc, argv);
}
