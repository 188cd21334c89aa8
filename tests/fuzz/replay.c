/*
 * replay.c - main() for a fuzz target under an ordinary compiler: feeds every file of the folders
 * that it is given to LLVMFuzzerTestOneInput(), and each of them cut at a few places too.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    struct fl_buf bytes;
    struct fl_error error;
    if (fl_fs_read(path, 1u << 24, &bytes, &error) != FL_OK) {
        fprintf(stderr, "%s\n", error.text);
        fl_buf_free(&bytes);
        return 1;
    }
    (void)LLVMFuzzerTestOneInput(bytes.data, bytes.length);
    for (size_t cut = 1; cut < 8; cut++)
        (void)LLVMFuzzerTestOneInput(bytes.data, bytes.length * cut / 8);
    fl_buf_free(&bytes);
    return 0;
}

static int replay_folder(const char *folder)
{
    int failed = 0;
    unsigned count = 0;
    char path[FL_PATH_BYTES];
    struct fl_error error;
    DIR *dir = opendir(folder);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        if (e->d_name[0] == '.' || fl_path_join(path, folder, e->d_name, &error) != FL_OK)
            continue;
        failed |= replay(path);
        count++;
    }
    if (dir)
        closedir(dir);
    printf("%s: %u inputs\n", folder, count);
    return failed || count == 0;
}

int main(int argc, char **argv)
{
    int failed = argc < 2;
    fl_hash_init();
    fl_json_init();
    for (int i = 1; i < argc; i++)
        failed |= replay_folder(argv[i]);
    return failed;
}
