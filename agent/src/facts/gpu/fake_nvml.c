/* A library with the calls of NVIDIA's that are used, over GPUs that a file describes, one a line:
 *   whole UUID BYTES        a GPU
 *   divided UUID BYTES      one in two parts; a third place for a part is empty
 *   shared UUID 0           one that has no memory of its own, and no parts
 *   lost UUID BYTES         one that has fallen off the bus
 *   broken                  the driver does not answer
 *   mismatch                the library cannot be initialised
 *   unloaded                there is no driver
 * The file is named by FAKE_NVML_FILE at compile time, and read at each call. */
#include <stdio.h>
#include <string.h>

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;

static char lines[16][256];

static int load(void) {
    FILE *file = fopen(FAKE_NVML_FILE, "r");
    int n = 0;
    if (!file) return 0;
    while (n < 16 && fgets(lines[n], sizeof lines[n], file)) n++;
    fclose(file);
    return n;
}

static int state(const char *word) {
    return load() > 0 && strncmp(lines[0], word, strlen(word)) == 0;
}

/* A handle: the number of the line, from 1, and of the part, from 1, times 100. */
static char *line_of(void *device) { return lines[(int)((long)device % 100) - 1]; }
static int part_of(void *device) { return (int)((long)device / 100); }

int nvmlInit_v2(void) {
    if (state("mismatch")) return 18;
    return state("unloaded") ? 9 : 0;
}
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "570.86.15");
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = load();
    return state("broken") ? 999 : 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if ((int)index >= load()) return 2;
    if (strncmp(lines[index], "lost", 4) == 0) return 15;
    *device = (void *)(long)(index + 1);
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    char uuid[96];
    sscanf(line_of(device), "%*s %95s", uuid);
    if (part_of(device)) snprintf(text, length, "MIG-%s-%d", uuid, part_of(device));
    else snprintf(text, length, "GPU-%s", uuid);
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    snprintf(text, length, part_of(device) ? "NVIDIA H200 MIG 3g.71gb" : "NVIDIA H200");
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_t *memory) {
    if (strncmp(line_of(device), "shared", 6) == 0) return 3;
    sscanf(line_of(device), "%*s %*s %llu", &memory->total);
    if (part_of(device)) memory->total /= 2;
    memory->reserved = 0;
    memory->used = 1000;
    memory->free = memory->total - memory->used;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
    if (part_of(device)) return 3;
    rates->gpu = 42;
    rates->memory = 7;
    return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    if (strncmp(line_of(device), "shared", 6) == 0) return 3;
    *current = *pending = strncmp(line_of(device), "divided", 7) == 0;
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    (void)device;
    *count = 3;
    return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **part) {
    if (index > 1) return 6;
    *part = (void *)((long)device + 100 * (long)(index + 1));
    return 0;
}
